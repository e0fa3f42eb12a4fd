"""A walk of a generation: its path growing on the map token by token, above the text with each token's probability.

    GenerationWalk(frame, {"no prompt": trace, "with a prompt": other}, place="layer 2", step=12)

Each trace is of one text that was written on (`wb.trace([prompt], generate=…)`); they stand side by side on one frame,
that of what was traced before. Reads traces; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from workbench.analysis.projection import Projection
from workbench.views.bands import WIDE, colour_of
from workbench.views.cloud import cloud_traces
from workbench.views.maps import head, lines, spans, with_slider
from workbench.views.page import figure_part
from workbench.views.theme import INK, Theme, empty_figure, heading, template
from workbench.views.traces import as_traces
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.analysis.trace import Trace

#: Tokens of the question that are shown before those that were written.
BEFORE = 6

#: Walks that stand side by side.
MOST = 2

_STRIP = 0.26  # of the height of the data, for the text


@dataclass(frozen=True)
class Walk:
    """One text that was written on. n tokens: the last of the question, then those written."""

    tokens: list[str]
    points: NDArray[np.float32]
    """(n, 2)"""
    off: NDArray[np.bool_]
    """(n,)"""
    step: NDArray[np.int64]
    """(n,) 0 for what was read, t for the t-th token written."""
    probability: NDArray[np.float64]
    """(n,) of each token after all before it; nan for one that nothing stood before."""


class GenerationWalk(View):
    """One text as it was written, with and without a prompt, up to one step.

    Args:
        frame: the map of `place`.
        walks: a trace of one text, or two by name.
        place: the layer, as the traces name it.
        step: tokens written so far; None for all.
        words: of each row that the frame was fitted to, for who points at it; a few are written.
    """

    def __init__(
        self,
        frame: Projection | None = None,
        walks: Trace | Mapping[str, Trace] | None = None,
        place: str = "",
        step: int | None = None,
        words: Sequence[str] = (),
        theme: Theme = "light",
        width: int = WIDE,
        height: int = 620,
    ) -> None:
        self.words = words
        self.frame, self.walks, self.place, self.step = frame, as_traces(walks), place, step
        self.theme, self.width, self.height = theme, width, height
        self._made: tuple[object, dict[str, Walk]] | None = None

    @property
    def last(self) -> int:
        """The most tokens that any of the walks has."""
        return max((int(walk.step[-1]) for walk in self._walks().values()), default=0)

    def data(self) -> pd.DataFrame:
        """One row a token: walk; step (0: of the question); token; probability; x, y; off (the map)."""
        columns = ["walk", "step", "token", "probability", "x", "y", "off"]
        parts = [
            pd.DataFrame(
                {
                    "walk": name,
                    "step": walk.step,
                    "token": walk.tokens,
                    "probability": walk.probability,
                    "x": walk.points[:, 0],
                    "y": walk.points[:, 1],
                    "off": walk.off,
                }
            )
            for name, walk in self._walks().items()
        ]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def figure(self) -> go.Figure:
        """For each walk the map with its path so far, and below it the text, a bar a token as high as it was likely."""
        walks = self._walks()
        if not walks or self.frame is None:
            return self._empty()
        ink, count, below = INK[self.theme], len(walks), self._below()
        top = 84 + 16 * len(below)
        figure = make_subplots(
            rows=2,
            cols=count,
            row_heights=[1 - _STRIP, _STRIP],
            horizontal_spacing=0.07,
            vertical_spacing=0.12,
        )
        x, y = spans(self.frame.points, *(walk.points for walk in walks.values()), room=0.04)
        for at, walk in enumerate(walks.values()):
            panel = {"row": 1, "col": at + 1}
            ground = cloud_traces(
                self.frame.points, self.words, self.theme, landmarks=6, name="what was traced"
            )
            figure.add_traces(ground, rows=1, cols=at + 1)
            for trace in self._path(walk, at, self.step):
                figure.add_trace(trace, **panel)
            figure.update_xaxes(range=x, showticklabels=False, ticks="", showgrid=False, mirror=True, **panel)
            figure.update_yaxes(
                range=y, showticklabels=False, ticks="", showgrid=False, mirror=True,
                scaleanchor="x" if not at else f"x{at + 1}", scaleratio=1, **panel,
            )  # fmt: skip
            strip = {"row": 2, "col": at + 1}
            figure.add_trace(self._strip(walk, at, self.step), **strip)
            figure.update_xaxes(
                tickvals=list(range(len(walk.tokens))),
                ticktext=self._labels(walk, self.step),
                tickangle=-90,
                range=[-0.7, max(len(w.tokens) for w in walks.values()) - 0.3],
                ticks="",
                tickfont={"size": 11, "color": ink["text"]},
                title_text="tokens, as they were read and written",
                showgrid=False,
                **strip,
            )
            figure.update_yaxes(range=[0, 1.02], tickvals=[0, 0.5, 1], **strip)
            figure.update_yaxes(**{"showticklabels": False} if at else {"title_text": "probability"}, **strip)
        figure.update_layout(
            template=template(self.theme),
            title=heading("A text as it is written", "<br>".join(below), self.theme)
            | {"y": 1 - 20 / self.height},
            width=self.width,
            height=self.height,
            margin={"t": top, "b": 104, "l": 56, "r": 16},
            showlegend=False,
            bargap=0.25,
            uirevision=f"walk {self.place}",
        )
        for at, (name, walk) in enumerate(walks.items()):
            axes = figure.get_subplot(1, at + 1)
            figure.add_annotation(head(axes, escape(name), self._said(walk), ink))
        return figure

    def animated(self) -> go.Figure:
        """The figure with a slider over the tokens and a button that plays them, for a page."""
        figure, walks = self.figure(), self._walks()
        if not walks or self.frame is None:
            return figure
        moving = [i for i, trace in enumerate(figure.data) if trace.meta == "moves"]
        figure.frames = [
            go.Frame(
                name=str(step),
                data=[
                    trace
                    for at, walk in enumerate(walks.values())
                    for trace in (*self._path(walk, at, step), self._strip(walk, at, step))
                ],
                traces=moving,
            )
            for step in range(self.last + 1)
        ]
        now = self.last if self.step is None else min(self.step, self.last)
        return with_slider(figure, "token ", now, self.theme, below=112)

    def part(self) -> str:
        """The figure with its slider, as a piece of a page."""
        return figure_part(self.animated())

    # what it is made of

    def _walks(self) -> dict[str, Walk]:
        key = (id(self.frame), self.place, tuple((name, id(trace)) for name, trace in self.walks.items()))
        if self._made is None or self._made[0] != key:
            self._made = (
                key,
                {} if self.frame is None else {n: self._walk(t) for n, t in list(self.walks.items())[:MOST]},
            )
        return self._made[1]

    def _walk(self, trace: Trace) -> Walk:
        assert self.frame is not None
        table = trace.table
        read = int((table["step"] == 0).sum())
        keep = slice(max(0, read - BEFORE), None)
        placed = self.frame.place(trace[self.place][keep])
        return Walk(
            [str(token) for token in table["token"][keep]],
            placed.points,
            placed.off,
            table["step"].to_numpy(np.int64)[keep],
            np.exp(table["log_probability"].to_numpy(np.float64)[keep]),
        )

    def _path(self, walk: Walk, at: int, step: int | None) -> list[go.Scatter]:
        """What was read, in grey; what was written so far; and the token at hand."""
        ink, colour = INK[self.theme], colour_of(at, self.theme)
        so_far = int(walk.step[-1]) if step is None else step
        read = walk.step == 0
        first = max(0, int(read.sum()) - 1)  # the path goes on from the last token that was read
        there = np.flatnonzero((walk.step <= so_far) & (np.arange(len(walk.step)) >= first))
        now = there[-1:] if len(there) else np.flatnonzero(read)[-1:]
        said = [
            f"{escape(repr(token)[1:-1])}<br>{_likely(p)}{', off the map' if off else ''}"
            for token, p, off in zip(walk.tokens, walk.probability, walk.off, strict=True)
        ]

        def path(rows: NDArray[np.int64], tone: str, width: float, size: float) -> go.Scatter:
            return go.Scatter(
                x=walk.points[rows, 0],
                y=walk.points[rows, 1],
                mode="lines+markers",
                line={"color": tone, "width": width},
                marker={
                    "size": size,
                    "color": tone,
                    "symbol": np.where(walk.off[rows], "circle-open", "circle").tolist(),
                    "line": {"width": 1, "color": tone},
                },
                text=[said[i] for i in rows],
                hovertemplate="%{text}<extra></extra>",
                meta="moves",
                showlegend=False,
            )

        return [
            path(np.flatnonzero(read), ink["quiet"], 1, 4),
            path(there, colour, 1.4, 5),
            go.Scatter(
                x=walk.points[now, 0],
                y=walk.points[now, 1],
                mode="markers+text",
                text=[escape(walk.tokens[i].strip()) for i in now],
                textposition="top center",
                textfont={
                    "size": 13,
                    "color": ink["text"],
                    "shadow": ", ".join([f"0 0 3px {ink['paper']}"] * 4),
                },
                marker={"size": 12, "color": colour, "line": {"width": 2, "color": ink["paper"]}},
                hoverinfo="skip",
                meta="moves",
                showlegend=False,
            ),
        ]

    def _strip(self, walk: Walk, at: int, step: int | None) -> go.Bar:
        """A bar a token; what is still to come is pale."""
        ink, colour = INK[self.theme], colour_of(at, self.theme)
        so_far = int(walk.step[-1]) if step is None else step
        return go.Bar(
            x=np.arange(len(walk.tokens)),
            y=np.nan_to_num(walk.probability),
            marker={
                "color": [ink["quiet"] if s == 0 else colour for s in walk.step],
                "opacity": np.where(walk.step <= so_far, np.where(walk.step == 0, 0.6, 1.0), 0.15),
            },
            text=[_likely(p) for p in walk.probability],
            textposition="none",
            customdata=[escape(token) for token in walk.tokens],
            hovertemplate="%{customdata}: %{text}<extra></extra>",
            meta="moves",
            showlegend=False,
        )

    def _labels(self, walk: Walk, step: int | None) -> list[str]:
        so_far = int(walk.step[-1]) if step is None else step
        quiet = INK[self.theme]["quiet"]
        return [
            f"<b>{_short(token)}</b>"
            if s == so_far and s
            else f"<span style='color:{quiet}'>{_short(token)}</span>"
            if s == 0 or s > so_far
            else _short(token)
            for token, s in zip(walk.tokens, walk.step, strict=True)
        ]

    def _said(self, walk: Walk) -> str:
        written = walk.step > 0
        if not written.any():
            return "wrote nothing"
        off = int(walk.off[written].sum())
        mean = f"mean probability {walk.probability[written].mean():.2f}"
        count = int(written.sum())
        return f"{count} token{'s' * (count > 1)}, {mean}" + (f", {off} off the map" if off else "")

    def _below(self) -> list[str]:
        frame = self.frame
        assert frame is not None
        shown = "" if frame.explained is None else f"{frame.explained.sum():.0%} of the variance shown"
        parts = [
            f"in {self.place}; grey: the end of the question; colour: what was written, up to the token in bold",
            shown,
        ]
        return lines(parts, self.width)

    def _empty(self) -> go.Figure:
        note = (
            "Choose a text and press Write on: its path grows here,<br>token by token, as the model writes."
        )
        below = "the path of a generation on the map"
        return empty_figure("A text as it is written", below, note, self.theme, self.width, 300)


def _short(token: str) -> str:
    text = token.strip() or repr(token)[1:-1]
    return escape(text if len(text) <= 10 else f"{text[:9]}…")


def _likely(probability: float) -> str:
    return "first" if np.isnan(probability) else f"probability {probability:.2f}"
