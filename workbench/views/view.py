"""What every view can do: give its table, its figure, a live widget, and a file. Holds no view of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.errors import WorkbenchError
from workbench.views.live import LiveFigure
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
            self._widget = LiveFigure(self.figure())
        return self._widget

    def update(self) -> None:
        """Redraws the widget from what is on the disk now; may be called from any thread."""
        self.widget().draw(self.figure())

    def save(self, path: str | Path) -> Path:
        """Writes the view to `path`: .html (stands alone), .csv (the table), .png or .svg (need kaleido).

        Raises WorkbenchError for another ending, and where what a picture needs is missing.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind not in {".html", ".csv", ".png", ".svg"}:
            raise WorkbenchError(f"cannot save a view as {path.name!r}; end it in .html, .png, .svg or .csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".csv":
            self.data().to_csv(path, index=False)
        elif kind == ".html":
            path.write_text(self.html(), encoding="utf-8")
        else:
            self._save_image(path, kind[1:])
        return path

    def html(self) -> str:
        """The view as one page that opens anywhere, without a network."""
        return str(self.figure().to_html(include_plotlyjs=True, full_html=True))

    def _save_image(self, path: Path, kind: str) -> None:
        if find_spec("kaleido") is None:
            raise WorkbenchError(
                f"saving {path.name!r} needs kaleido: run `pip install kaleido`, and have Chrome or Chromium "
                "installed; .html and .csv need neither"
            )
        try:
            self.figure().write_image(path, format=kind, scale=2)
        except Exception as error:  # kaleido raises a dozen kinds, all about the browser that it starts
            raise WorkbenchError(
                f"could not save {path.name!r}: kaleido found no working Chrome or Chromium ({error}); "
                "install one, or save as .html"
            ) from error
