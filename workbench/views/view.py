"""What every view can do: give its table, its figure, a live widget, and a file. Holds no view of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import WorkbenchError
from workbench.views.page import figure_part, page
from workbench.views.picture import picture
from workbench.views.theme import Theme


class View(ABC):
    """A table that can be drawn. A view reads; it never trains and never changes what it reads."""

    theme: Theme = "light"

    @abstractmethod
    def data(self) -> pd.DataFrame:
        """The numbers behind the figure, one row a mark; empty while there is nothing to show."""

    @abstractmethod
    def figure(self) -> go.Figure:
        """The figure, with a sentence in the place of the data while there is none."""

    def widget(self) -> Any:
        """The figure as a widget that `update()` redraws; one widget a view, however often it is shown."""
        if not hasattr(self, "_widget"):
            from workbench.views.live import (
                LiveFigure,
            )  # plotly's widget takes a second, which a table need not wait

            self._widget = LiveFigure(self.figure()).add_class(f"wb-{self.theme}")
        return self._widget

    def update(self) -> None:
        """Redraws the widget from what is on the disk now; may be called from any thread."""
        self.widget().draw(self.figure())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """As the last line of a cell a view shows its widget, which follows JupyterLab's theme; a bare figure cannot."""
        return self.widget()._repr_mimebundle_(**options)

    def save(self, path: str | Path) -> Path:
        """Writes the view to `path`, whole or not at all.

        .html: a page that opens anywhere, with hover and sliders. .csv: the table. .png, .svg: the figure, drawn by a
        Chromium or Chrome of this machine.

        Raises:
            WorkbenchError: another ending, no browser for a picture, or a place that cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".html":
            content = self.html().encode()
        elif kind == ".csv":
            content = self.data().to_csv(index=False).encode()
        elif kind == ".png":
            content = picture(self.figure(), "png")
        elif kind == ".svg":
            content = picture(self.figure(), "svg")
        else:
            raise WorkbenchError(f"cannot save a view as {path.name!r}; end it in .html, .png, .svg or .csv")
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise WorkbenchError(f"{path} cannot be written ({why}); choose another place") from error
        return path

    def html(self) -> str:
        """The view as one page that opens anywhere, without a network."""
        return page(type(self).__name__, [self.part()], self.theme)

    def part(self) -> str:
        """The view as a piece of a page that holds plotly's library."""
        return figure_part(self.figure())


class Table(View):
    """A view that a page shows as an HTML table, and a picture as a figure.

    As the last line of a cell it is plain HTML: it needs no kernel when the notebook is opened again.
    """

    @abstractmethod
    def table_html(self) -> str:
        """The table with its style."""

    def widget(self) -> ipywidgets.HTML:
        """The table as HTML that `update()` rewrites."""
        if not hasattr(self, "_widget"):
            self._widget = ipywidgets.HTML(self.table_html(), layout={"width": "100%"})
        return self._widget

    def update(self) -> None:
        """Rewrites the widget's table from what is on the disk now."""
        html = self.table_html()
        if self.widget().value != html:
            self.widget().value = html

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return {"text/html": self.table_html(), "text/plain": type(self).__name__}
