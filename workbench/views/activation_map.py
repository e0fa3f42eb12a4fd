"""A map of what a backbone makes of texts, in one layer of a trace: each point is a token, or the mean of a text.

    ActivationMap(trace)                                          # made by wb.trace
    ActivationMap({"no prompt": one, "with a prompt": other}, place="layer 2", colour="run", kind="umap")

Maps of layers are turned to one another, so a slider over layers moves what differs (`analysis/frames.py`). Above
`MOST_ROWS` rows as many are drawn, and the figure says so. Reads traces; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.errors import unknown
from workbench.views.bands import COLOURS, colour_of
from workbench.views.maps import lines, spans, with_slider, within
from workbench.views.page import figure_part
from workbench.views.theme import INK, Theme, empty_note, heading, template
from workbench.views.traces import Traces, as_traces
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.analysis.trace import Trace

Colour = Literal["task", "token", "position", "correctness", "run"]

#: How a run is marked, the first to fit the map and those that are placed in it.
MARKS = ("circle", "diamond", "square", "triangle-up", "cross")

#: Of colours for places along a text, from the first to the last: viridis without its pale end, dark on light paper.
ALONG = ((0.0, "#440154"), (0.35, "#31688e"), (0.7, "#1f9e89"), (1.0, "#6ba82f"))

NAMES = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}

#: Pixels of the figure while there is nothing to show.
EMPTY = 320

_MARGIN = {"l": 56, "r": 16, "b": 48}


class ActivationMap(View):
    """Rows of traces on the map of one layer.

    Args:
        traces: one trace, or several by name, of which the first fits the map; or `Traces`.
        place: the layer, as the trace names it; None for the one in the middle.
        colour: what colours say: "task", "token", "position", "correctness" or "run".
        kind: "pca", "umap" or "tsne", where `traces` are not `Traces` already.
        scores: run to the score (0 to 1) of each of its texts, nan where it was not asked; for "correctness".
        cache: a folder that keeps fitted maps.

    Attributes:
        brushed: numbers of rows of `data()` that were drawn round, rising; in every layer the same rows.

    Raises:
        WorkbenchError: an unknown place, colour or kind, or traces that cannot be shown together.
    """

    def __init__(
        self,
        traces: Trace | Mapping[str, Trace] | Traces | None = None,
        place: str | None = None,
        colour: Colour = "task",
        kind: str = "pca",
        scores: Mapping[str, Sequence[float]] | None = None,
        cache: Path | None = None,
        theme: Theme = "light",
        width: int = 640,
        height: int = 600,
    ) -> None:
        if kind not in NAMES:
            raise unknown("kind of map", kind, NAMES)
        self.traces: Traces | None = (
            traces
            if isinstance(traces, Traces)
            else Traces(named, kind, cache)
            if (named := as_traces(traces))
            else None
        )
        self.place, self.colour, self.scores = place, colour, dict(scores or {})
        self.theme, self.width, self.height = theme, width, height
        self.brushed: NDArray[np.int64] = np.zeros(0, np.int64)
        self._order: tuple[Traces, NDArray[np.int64]] | None = None
        self._colours: tuple[Any, Any] | None = None

    @property
    def shown(self) -> str:
        """The place that is shown; "" without traces. Raises WorkbenchError where the traces have no such place."""
        if self.traces is None:
            return ""
        places = self.traces.places
        if self.place is None:
            return places[len(places) // 2]
        if self.place not in places:
            raise unknown("place in this trace", self.place, places)
        return self.place

    def data(self) -> pd.DataFrame:
        """One row a point: run; row (in its trace); the columns of `Trace.table`; hover; x, y; off (the map); brushed."""
        if self.traces is None:
            return pd.DataFrame(columns=["run", "row", "text", "task", "token", "x", "y", "off", "brushed"])
        at, table = self.traces.at(self.shown), self.traces.rows
        brushed = np.zeros(len(table), bool)
        brushed[self.brushed] = True
        return table.assign(x=at.points[:, 0], y=at.points[:, 1], off=at.off, brushed=brushed)

    def inside(self, outlines: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
        """Numbers of the rows that lie in outlines (k, 2) drawn on the map that is shown."""
        if self.traces is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(within(self.traces.at(self.shown).points, outlines))

    # how it is drawn

    def figure(self) -> go.Figure:
        """Points of all runs, in the colours of the legend; what was drawn round stands out."""
        ink, traces = INK[self.theme], self.traces
        if self.colour not in get_args(Colour):
            raise unknown("colour", self.colour, get_args(Colour))
        figure = go.Figure()
        figure.update_layout(
            template=template(self.theme),
            title=self._heading(),
            width=self.width,
            height=self.height,
            margin=_MARGIN | {"t": self._top()},
            legend={"itemsizing": "constant", "itemclick": False, "itemdoubleclick": False},
            dragmode="lasso",
            newselection={"line": {"color": ink["quiet"], "width": 1}},
            modebar={"remove": ["zoomIn", "zoomOut", "autoScale"]},
            uirevision=f"activations {self.shown} {traces and traces.kind}",
        )
        if traces is None:
            note = empty_note(
                "Choose tasks, press Trace, and see here<br>what each layer makes of them.", self.theme
            )
            figure.update_layout(annotations=[note], height=EMPTY)
            return figure.update_xaxes(visible=False).update_yaxes(visible=False)
        figure.add_traces([*self._points(self.shown), *self._legend()])
        for number, axis in enumerate((figure.update_xaxes, figure.update_yaxes)):
            axis(title_text=self._axis(number), range=self._ranges(self.shown)[number], autorange=False)
        return figure.update_yaxes(scaleanchor="x", scaleratio=1)

    def animated(self) -> go.Figure:
        """The figure with a slider over the layers, for a page, as a widget has its own."""
        figure, traces = self.figure(), self.traces
        if traces is None or len(traces.places) < 2:
            return figure
        figure.frames = [
            go.Frame(
                name=place,
                data=[{"type": "scattergl", "x": p.x, "y": p.y} for p in self._points(place)],
                traces=list(range(len(traces.traces))),
                layout={
                    "title": self._heading(place),
                    **{f"{a}axis": {"range": r} for a, r in zip("xy", self._ranges(place), strict=True)},
                },
            )
            for place in traces.places
        ]
        return with_slider(figure, "", traces.places.index(self.shown), self.theme)

    def part(self) -> str:
        """The figure with its slider, as a piece of a page."""
        return figure_part(self.animated())

    def _points(self, place: str) -> list[go.Scattergl]:
        """A trace for each run, drawn in a random order, so that no task lies on another."""
        assert self.traces is not None
        at, table = self.traces.at(place), self.traces.rows
        if self._order is None or self._order[0] is not self.traces:
            self._order = (self.traces, np.random.default_rng(0).permutation(len(table)))
        order, run = self._order[1], table["run"].to_numpy()
        hover = table["hover"].to_numpy()
        brushed = np.zeros(len(table), bool)
        brushed[self.brushed] = True
        values, scale = self._values()
        many = len(table)
        size = 7 if many < 1500 else 5 if many < 6000 else 4 if many < 20_000 else 3
        found = []
        for number, name in enumerate(self.traces.traces):
            own = order[run[order] == name]
            mark = MARKS[number % len(MARKS)]
            off = at.off[own]
            found.append(
                go.Scattergl(
                    x=at.points[own, 0],
                    y=at.points[own, 1],
                    mode="markers",
                    name=name,
                    showlegend=False,
                    marker={
                        "symbol": np.where(off, f"{mark}-open", mark) if off.any() else mark,
                        "size": size + 2 * (number > 0),
                        "color": values[own],
                        "opacity": 0.75 if many < 6000 else 0.5,
                        **scale,
                    },
                    selectedpoints=np.flatnonzero(brushed[own]) if brushed.any() else None,
                    selected={"marker": {"opacity": 1}},
                    unselected={"marker": {"opacity": 0.12}},
                    text=hover[own],
                    hovertemplate=f"%{{text}}<extra>{escape(name)}</extra>"
                    if len(self.traces.traces) > 1
                    else "%{text}<extra></extra>",
                )
            )
        return found

    def _values(self) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """(m,) a number for each row, and what makes colours of them."""
        if self.colour == "position" and (along := self._along()) is not None:
            bar = {
                "title": {"text": "position in the text", "side": "right", "font": {"size": 11}},
                "thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11, "color": INK[self.theme]["quiet"]},
            }  # fmt: skip
            most = max(1.0, float(np.quantile(along, 0.99)))
            return along, {"colorscale": ALONG, "cmin": 0, "cmax": most, "showscale": True, "colorbar": bar}
        of, names = self._classes()
        steps = [
            (share, colour)
            for i, (_, colour) in enumerate(names)
            for share in (i / len(names), (i + 1) / len(names))
        ]
        return of.astype(np.float32), {
            "colorscale": steps,
            "cmin": -0.5,
            "cmax": len(names) - 0.5,
            "showscale": False,
        }

    def _along(self) -> NDArray[np.float32] | None:
        assert self.traces is not None
        index = self.traces.rows["index"].to_numpy(np.float32)
        return index if (index >= 0).any() else None

    def _classes(self) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
        """(m,) the class of each row, and the classes with their colours; classes beyond the colours are one."""
        assert self.traces is not None
        key = (self.traces, self.colour, repr(self.scores), self.theme)
        if self._colours is None or self._colours[0] != key:
            self._colours = (key, self._classified())
        return self._colours[1]  # type: ignore[no-any-return]

    def _classified(self) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
        assert self.traces is not None
        table, ink = self.traces.rows, INK[self.theme]
        if self.colour == "correctness":
            of = np.full(len(table), 2)
            for name, scores in self.scores.items():
                own = (table["run"] == name).to_numpy()
                score = np.asarray(scores, float)[table["text"].to_numpy()[own]]
                of[own] = np.where(np.isnan(score), 2, np.where(score >= 1, 0, 1))
            return of, [
                ("answered right", ink["good"]),
                ("wrong or in part", ink["second"]),
                ("not asked", ink["quiet"]),
            ]
        if self.colour == "position":
            return np.zeros(len(table), np.int64), [("a mean has no position", ink["quiet"])]
        labels = (
            table[self.colour].astype(str).str.strip()
            if self.colour == "token"
            else table[self.colour].astype(str)
        )
        counts = labels[labels != ""].value_counts()
        names = list(counts.index) if self.colour == "token" else list(dict.fromkeys(labels))
        first = names[: COLOURS if len(names) <= COLOURS else COLOURS - 1]
        number = {name: i for i, name in enumerate(first)}
        of = labels.map(lambda label: number.get(label, len(first))).to_numpy()
        found = [(name, colour_of(i, self.theme)) for i, name in enumerate(first)]
        if (of == len(first)).any():
            others = len(names) - len(first)
            found.append(
                (f"{others:,} other {self.colour}s" if others else f"no {self.colour}", ink["quiet"])
            )
        return of, found

    def _legend(self) -> list[go.Scatter]:
        """An entry for each class, and for the mark of each run where there are several."""
        assert self.traces is not None
        along = self.colour == "position" and self._along() is not None
        entries = [] if along else [(name, "circle", colour) for name, colour in self._classes()[1]]
        if len(self.traces.traces) > 1:
            marks = [MARKS[number % len(MARKS)] for number in range(len(self.traces.traces))]
            if self.colour == "run" and len(entries) == len(marks):
                entries = [
                    (name, mark, colour) for (name, _, colour), mark in zip(entries, marks, strict=True)
                ]
            else:
                quiet = INK[self.theme]["quiet"]
                entries += [(name, mark, quiet) for name, mark in zip(self.traces.traces, marks, strict=True)]
        return [
            go.Scatter(
                x=[None], y=[None], mode="markers", name=escape(name), hoverinfo="skip",
                marker={"size": 8, "symbol": mark, "color": colour},
            )
            for name, mark, colour in entries
        ]  # fmt: skip

    def _ranges(self, place: str) -> list[list[float]]:
        assert self.traces is not None
        if self.traces.frames[place].alike:
            return [[-1.0, 1.0]] * 2  # all are at zero
        return spans(self.traces.at(place).points, room=0.04)

    def _axis(self, number: int) -> str:
        assert self.traces is not None
        if self.traces.kind == "pca":
            return f"direction {number + 1}, in the layer's own unit"
        return f"{NAMES[self.traces.kind]} {number + 1} (no unit)"

    def _heading(self, place: str | None = None) -> dict[str, object]:
        title = "What each layer makes of texts"
        place = place or self.shown
        if place and self.traces is not None:
            reads = (
                "gives after its last layer"
                if place == "output"
                else "holds"
                if "state" in place
                else "reads"
            )
            name = str(self.traces.first.settings["backbone"]["name"]).rsplit("/", 1)[-1]
            title = f"What {name} {reads}" if place == "output" else f"What {place} of {name} {reads}"
            if place == "embeddings":
                title = f"The embeddings of {name}"
        return heading(title, "<br>".join(self._below(place)), self.theme) | {
            "y": 1 - 20 / (self.height if self.traces else EMPTY)
        }

    def _below(self, place: str) -> list[str]:
        traces = self.traces
        if traces is None:
            return ["tokens, or means of texts, on a map of each layer"]
        frame = traces.frames[place]
        table, what = traces.rows, traces.first.settings["positions"]
        named = {
            "all": "tokens",
            "last": "last tokens",
            "answer": "tokens of answers",
            "mean": "means of texts",
        }
        texts = table.groupby("run")["text"].nunique().sum()
        off = int(traces.at(place).off.sum())
        shown = (
            "" if frame.explained is None else f"this plane shows {frame.explained.sum():.0%} of the variance"
        )
        far = "" if frame.linear else "distances between groups mean nothing here"
        reduced = [part for part in frame.note.split("; ") if part and "rows" not in part]
        if frame.alike:
            first = "" if len(traces.traces) < 2 else f" of {escape(next(iter(traces.traces)))}"
            shown, far, reduced = f"all vectors{first} are the same here, so the map is one point", "", []
        return lines(
            [
                f"{len(table):,} {named.get(str(what), 'tokens')} of {texts:,} texts",
                shown,
                far,
                *reduced,
                traces.thinned,
                f"{off} off the map, hollow" if off else "",
            ],
            self.width,
        )

    def _top(self) -> int:
        """Pixels above the data, for the heading and the legend."""
        longest = [0] if self.traces is None else [len(str(trace.name)) for trace in self._legend()]
        columns = max(
            1, int((self.width - 72) // (46 + 6.3 * max(longest)))
        )  # plotly makes all as wide as the widest
        rows = -(-len(longest) // columns)
        return 52 + 16 * max(1, len(self._below(self.shown))) + 21 * rows
