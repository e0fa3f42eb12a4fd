"""How every figure looks: one template for all, the colours, and how they follow JupyterLab. Draws nothing itself.

A figure is drawn once, for light paper. What a dark page shows is a function of that (`turned`): lightness is
reversed and hues stay. So a page needs one rule (`CSS`) and no message from the kernel: the browser turns the figures
within `.wb-light`, whatever their marks are, as soon as JupyterLab's own theme changes, also in a notebook without a
kernel; what is saved, as HTML or as a still picture, is the figure as it was drawn. `template("dark")` draws in the
colours that the rule would show, for a picture on a dark slide; parts within `.wb-dark` are never turned.

The colours were searched for: of all with a contrast of 3 to light and to dark paper, those that are farthest apart for
people who see no red, no green or no blue (26 in CIELAB; Okabe and Ito's, some of which are pale on white, 12 here).
What would be hard to read in a figure is found by `check.py`.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import plotly.graph_objects as go

Theme = Literal["light", "dark"]

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: What a browser does to a light figure on a dark page, as CSS and below as arithmetic: white becomes JupyterLab's #111.
TURN = "invert(93.3333%) hue-rotate(180deg)"


def turned(colour: str) -> str:
    """A colour "#rrggbb" of a light figure as a dark page shows it (`TURN`; W3C Filter Effects, 2.5 and 13)."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    red, green, blue = ((255 - c) * 14 / 15 + c / 15 for c in channels)
    mixed = (
        -0.574 * red + 1.43 * green + 0.144 * blue,
        0.426 * red + 0.43 * green + 0.144 * blue,
        0.426 * red + 1.43 * green - 0.856 * blue,
    )
    return "#" + "".join(f"{round(min(max(c, 0), 255)):02x}" for c in mixed)


BLUE, VERMILION, GREEN, PINK = "#02459e", "#ea6c02", "#489f7d", "#d56dc3"
BROWN, VIOLET, BLACK = "#6a4602", "#966fff", "#24292f"
COLOURWAY = (BLUE, VERMILION, GREEN, PINK, BROWN, VIOLET, BLACK)

_LIGHT = {
    "paper": "#ffffff",
    "text": BLACK,
    "quiet": "#646d78",
    "grid": "#eaedf0",
    "line": "#c9d0d7",
    "first": BLUE,
    "second": VERMILION,
    "good": GREEN,
}

#: The colours of what is not data; `first` and `second` are those of what is looked at first, and `good` and `second`
#: mark what is right and what is wrong.
INK: dict[Theme, dict[str, str]] = {
    "light": _LIGHT,
    "dark": {name: turned(colour) for name, colour in _LIGHT.items()},
}


def colours(theme: Theme = "light") -> tuple[str, ...]:
    """Seven colours for lines and points, of which `INK[theme]` calls two `first` and `second`, and the last is its text."""
    return COLOURWAY if theme == "light" else tuple(map(turned, COLOURWAY))


def variables(theme: Theme) -> str:
    """The inks as CSS variables, `--wb-text` and so on, for the HTML beside the figures."""
    return "; ".join(f"--wb-{name}: {colour}" for name, colour in INK[theme].items())


#: Once in a page, with any widget: what stands within `.wb-light` follows JupyterLab, within `.wb-dark` it stays dark.
CSS = f"""
.wb-light {{ {variables("light")} }}
body[data-jp-theme-light="false"] .wb-light, .wb-dark {{ {variables("dark")} }}
body[data-jp-theme-light="false"] .js-plotly-plot:is(.wb-light *, .wb-light):not(.wb-dark) {{ filter: {TURN}; }}
"""


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
            "colorway": colours(theme),
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


def empty_figure(
    title: str, below: str, note: str, theme: Theme = "light", width: int = 860, height: int = 150
) -> go.Figure:
    """A figure with nothing to draw yet: what it will be, and the sentence that says how."""
    figure = go.Figure(layout={"template": template(theme), "annotations": [empty_note(note, theme)]})
    figure.update_layout(title=heading(title, below, theme), width=width, height=height)
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)
