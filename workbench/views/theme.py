"""How every figure looks: one template for light pages and one for dark ones, and the colours. Draws nothing itself.

The colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which stay apart for colour-blind readers.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import plotly.graph_objects as go

Theme = Literal["light", "dark"]

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
COLOURWAY = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, YELLOW)

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: What differs between a light and a dark page; `first` is the colour of what is looked at first.
INK: dict[Theme, dict[str, str]] = {
    "light": {
        "paper": "#ffffff",
        "text": "#24292f",
        "quiet": "#6b7480",
        "grid": "#eaedf0",
        "line": "#c9d0d7",
        "first": BLUE,
    },
    "dark": {
        "paper": "#111418",
        "text": "#e6e9ed",
        "quiet": "#98a2ad",
        "grid": "#252b32",
        "line": "#414a54",
        "first": SKY,
    },
}


@cache
def template(theme: Theme = "light") -> go.layout.Template:
    """The plotly template of a theme: quiet axes, no box, the legend above the data and never on it."""
    ink = INK[theme]
    axis = {
        "automargin": True,
        "gridcolor": ink["grid"],
        "linecolor": ink["line"],
        "showline": True,
        "ticks": "outside",
        "tickcolor": ink["line"],
        "ticklen": 4,
        "tickfont": {"color": ink["quiet"], "size": 11},
        "title": {"font": {"color": ink["text"], "size": 12}, "standoff": 8},
        "zeroline": False,
    }
    return go.layout.Template(
        layout={
            "colorway": COLOURWAY,
            "font": {"family": FONT, "color": ink["text"], "size": 12},
            "paper_bgcolor": ink["paper"],
            "plot_bgcolor": ink["paper"],
            "title": {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "yref": "container",
                "y": 0.965,
                "yanchor": "top",
                "pad": {"t": 6},
                "font": {"size": 14, "weight": 600},
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.01,
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
                "font": {"size": 11, "color": ink["quiet"]},
            },
            "margin": {"l": 56, "r": 16, "t": 88, "b": 48},
            "modebar": {
                "remove": ["zoom", "pan", "select", "lasso", "zoomIn", "zoomOut", "autoScale"],
                "bgcolor": "rgba(0,0,0,0)",
                "color": ink["line"],
                "activecolor": ink["quiet"],
            },
            "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def heading(title: str, below: str, theme: Theme = "light") -> dict[str, object]:
    """A figure's title with a quiet line below it; one text, since plotly misplaces a subtitle drawn off the page."""
    quiet = f"font-size:11.5px;font-weight:400;color:{INK[theme]['quiet']}"
    return {"text": f'{title}<br><span style="{quiet}">{below}</span>'}


def empty_note(text: str, theme: Theme = "light") -> dict[str, object]:
    """The sentence that stands in the middle of a figure with nothing to draw yet."""
    return {
        "text": text,
        "showarrow": False,
        "x": 0.5,
        "y": 0.5,
        "xref": "paper",
        "yref": "paper",
        "align": "center",
        "font": {"size": 13, "color": INK[theme]["quiet"]},
    }
