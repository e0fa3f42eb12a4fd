"""Widgets as HTML that stands still: what a panel shows now, for a page without Jupyter. Changes no widget.

Figures stay plotly figures, with hover and zoom; what could be pressed or typed is shown with its value, and dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from html import escape
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go
from plotly.io import to_html

from workbench.views.live import LiveFigure

#: The type of the output that `publish` makes: model id to HTML.
STILLS = "application/vnd.workbench.stills+json"


@singledispatch
def still(widget: Any) -> str:
    """A widget, and all that is in it, as HTML for a page that has loaded plotly.js."""
    if not hasattr(widget, "value"):
        return f"<em>{escape(type(widget).__name__)}: only in Jupyter</em>"
    value = widget.label if hasattr(widget, "label") else widget.value
    return _element(
        widget, "div", f"{escape(getattr(widget, 'description', ''))} <b>{escape(str(value))}</b>"
    )


@still.register
def _(widget: go.FigureWidget) -> str:
    if isinstance(widget, LiveFigure):
        widget.flush()
    return figure_html(widget)


@still.register
def _(widget: w.HTML) -> str:
    return _element(widget, "div", widget.value)


@still.register
def _(widget: w.Checkbox) -> str:
    return _element(widget, "div", f"{'☑' if widget.value else '☐'} {escape(widget.description)}")


@still.register
def _(widget: w.TagsInput) -> str:
    return _element(widget, "div", " · ".join(map(escape, widget.value)))


@still.register
def _(widget: w.Play) -> str:
    return ""


@still.register
def _(widget: w.Label) -> str:
    return _element(widget, "div", escape(widget.value))


@still.register
def _(widget: w.Button) -> str:
    return _element(widget, "button", escape(widget.description), " disabled")


@still.register
def _(widget: w.Box) -> str:
    titles = getattr(widget, "titles", ())
    heads = [f"<h5>{escape(title)}</h5>" for title in titles] or [""] * len(widget.children)
    inner = "".join(head + still(child) for head, child in zip(heads, widget.children, strict=False))
    return _element(widget, "div", inner)


def figure_html(figure: Any) -> str:
    """A figure, or the dict of one, as a part of a page that has loaded plotly.js."""
    config = {"displaylogo": False}
    return str(to_html(figure, config, include_plotlyjs=False, full_html=False, validate=False))


def publish(models: Sequence[str]) -> None:
    """Shows the stills of the widgets with these model ids as one output; for `views/report.py`, which asks a kernel."""
    from IPython.display import display

    find = w.widget_serialization["from_json"]
    display({STILLS: {model: still(find(f"IPY_MODEL_{model}", None)) for model in models}}, raw=True)


def _element(widget: Any, tag: str, inner: str, more: str = "") -> str:
    style = {"display": widget.layout.display, "flex-flow": widget.layout.flex_flow}
    if isinstance(widget, w.GridBox):
        style |= {"display": "grid", "grid-template-columns": widget.layout.grid_template_columns}
    elif isinstance(widget, w.Box) and style["display"] is None:
        row = isinstance(widget, w.HBox)
        style = {"display": "flex", "flex-flow": style["flex-flow"] or ("row wrap" if row else "column")}
    css = ";".join(f"{name}:{value}" for name, value in style.items() if value)
    classes = " ".join(widget._dom_classes)
    return f'<{tag} class="{escape(classes)}" style="{css}"{more}>{inner}</{tag}>'
