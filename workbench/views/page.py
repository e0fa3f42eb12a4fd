"""Figures and tables as one HTML page that opens anywhere: nothing in it is loaded from elsewhere.

plotly's library (about 5 MB) stands in it once, however many figures there are. Holds no figure of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from workbench.views.theme import FONT, Theme, variables

STYLE = """
:root { VARIABLES }
body { margin: 24px auto; max-width: 940px; padding: 0 12px; font: 13px/1.5 FONT; background: var(--wb-paper);
  color: var(--wb-text); }
h1 { font-size: 18px; font-weight: 600; margin: 0 0 14px; }
section { margin: 0 0 22px; overflow-x: auto; }
"""


def page(title: str, parts: Iterable[str], theme: Theme = "light", heading: bool = False) -> str:
    """`parts`, pieces of HTML, below one another; `heading` writes the title above them."""
    body = "\n".join(f"<section>{part}</section>" for part in parts)
    style = STYLE.replace("FONT", FONT).replace("VARIABLES", variables(theme))
    library = f"<script>{get_plotlyjs()}</script>\n" if "plotly-graph-div" in body else ""
    above = f"<h1>{escape(title)}</h1>\n" if heading else ""
    return (
        f"<!doctype html>\n<html lang='en'>\n<head><meta charset='utf-8'><title>{escape(title)}</title>\n"
        f"<meta name='viewport' content='width=device-width'>\n<style>{style}</style>\n{library}</head>\n"
        f"<body>\n{above}{body}\n</body>\n</html>\n"
    )


def figure_part(figure: go.Figure) -> str:
    """A figure as a piece of a page, with its hover, its legend's switches and its sliders."""
    width, height = figure.layout.width, figure.layout.height
    return str(
        figure.to_html(
            include_plotlyjs=False,
            full_html=False,
            auto_play=False,  # it stands at the frame that was saved
            config={"displaylogo": False},
            default_width=f"{width}px" if width else "100%",
            default_height=f"{height}px" if height else "450px",
        )
    )
