"""Sentences as paths: from each token to the next, on the map of a vocabulary or of what a layer makes of a task.

    SentencePaths("tiny-llama", texts=["the old king sang", "seven and two is nine"])
    SentencePaths("tiny-llama", task="reading", layer=2)

The figure of sentence trajectories of arXiv 2412.18582. Reads a backbone and a task; trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.analysis.projection import Placed, Projection, ProjectionConfig, fit_projection
from workbench.analysis.surroundings import Surroundings
from workbench.errors import WorkbenchError
from workbench.views.bands import COLOURS, WIDE, colour_of
from workbench.views.cloud import cloud_traces
from workbench.views.maps import apart, axis_title, lines, model, place_name, spans
from workbench.views.theme import INK, Theme, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

#: Examples of a task that are drawn where no texts are given.
EXAMPLES = 2

#: Tokens of a path that is drawn with a strong line; a longer one gets a thin line.
SHORT = 30

WALK = "random walk"

_MARGIN = {"l": 62, "r": 230, "t": 50, "b": 48}


@dataclass(frozen=True)
class Way:
    """A text on the map. n tokens."""

    name: str
    """"text 1" and so on, or `WALK`."""
    title: str
    tokens: list[str]
    vectors: NDArray[np.float32]
    """(n, d)"""
    placed: Placed

    @property
    def steps(self) -> NDArray[np.float64]:
        """(n - 1,) how far each token is from the one before, in all d directions."""
        return np.asarray(np.linalg.norm(np.diff(self.vectors.astype(np.float64), axis=0), axis=1))


class SentencePaths(View):
    """Texts as paths through one space of a backbone.

    Args:
        backbone: the model, or its name.
        texts: a text, or several; up to seven.
        task: its examples are the texts where none are given, and in a layer its activations are the ground. Without a
            task the ground is the vocabulary, in a layer as it reads each token alone.
        layer: None for input embeddings, or a block from 0, for what it reads.
        walk: draw tokens drawn at random from the vocabulary as well, as many as the longest text has.
        projection: how the map is fitted, to the ground alone.
        seed: of the task's examples and of the walk.
        cache: a folder that keeps fitted maps.

    Raises:
        WorkbenchError: no such backbone, task or layer, a text without tokens, or too many texts.
    """

    def __init__(
        self,
        backbone: Backbone | str | None = None,
        texts: str | Sequence[str] = (),
        task: str | None = None,
        layer: int | None = None,
        walk: bool = True,
        projection: ProjectionConfig | None = None,
        seed: int = 0,
        cache: Path | None = None,
        theme: Theme = "light",
        width: int = WIDE,
        height: int = 560,
    ) -> None:
        self.texts = (texts,) if isinstance(texts, str) else tuple(texts)
        if len(self.texts) > COLOURS:
            raise WorkbenchError(f"{len(self.texts)} texts cannot be told apart; give {COLOURS} or fewer")
        self.around = Surroundings(model(backbone), place_name(layer)) if backbone is not None else None
        self.task, self.walk, self.seed, self.cache = task, walk, seed, cache
        self.projection = projection or ProjectionConfig()
        self.theme, self.width, self.height = theme, width, height

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        if self.texts or self.task is None or self.around is None:
            return self.texts
        from workbench.tasks.task import load_task

        return tuple(example.text for example in load_task(self.task).examples(n=EXAMPLES, seed=self.seed))

    @cached_property
    def frame(self) -> Projection | None:
        """The map, fitted to the ground; None where there is nothing to show."""
        around = self.around
        if around is None or not self._texts:
            return None
        on_task = around.layer is not None and self.task is not None
        ground = around.activations(str(self.task)) if on_task else around.vocabulary
        named = {
            "backbone": around.backbone.name,
            "place": around.place,
            "task": self.task if on_task else None,
        }
        words = None if on_task else around.words
        return fit_projection(ground, self.projection, key=named, cache=self.cache, words=words)

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """The texts in their order, and the random walk behind them."""
        around, frame = self.around, self.frame
        if around is None or frame is None:
            return ()
        from workbench.methods.priors.points import read_texts

        tokenizer = around.backbone.tokenizer
        rows = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in self._texts]
        for text, ids in zip(self._texts, rows, strict=True):
            if not ids:
                raise WorkbenchError(f"the text {text!r} has no tokens; give one of at least a word")
        titles = [f"“{shorten(text, 56, placeholder=' …')}”" for text in self._texts]
        names = [f"text {number}" for number in range(1, len(rows) + 1)]
        if self.walk:
            dice = np.random.default_rng(self.seed)
            rows.append(dice.integers(around.backbone.vocabulary_size, size=max(map(len, rows))).tolist())
            titles, names = [*titles, "random walk over the vocabulary"], [*names, WALK]
        vectors = np.split(
            read_texts(around.backbone, around.layer, rows).numpy(),
            np.cumsum([len(ids) for ids in rows])[:-1],
        )
        tokens = [[_written(str(tokenizer.decode([token]))) for token in ids] for ids in rows]
        return tuple(
            Way(name, title, words, here, frame.place(here))
            for name, title, words, here in zip(names, titles, tokens, vectors, strict=True)
        )

    def data(self) -> pd.DataFrame:
        """One row a token.

        path ("text 1", … or "random walk"); position (from 1); token; x, y (on the map); step (distance from the token
        before, in all directions and the vectors' own unit; empty for the first); distance (to what the map was fitted
        to, see `Placed`); off (whether that is off the map).
        """
        columns = ["path", "position", "token", "x", "y", "step", "distance", "off"]
        parts = [
            pd.DataFrame(
                {
                    "path": way.name,
                    "position": np.arange(1, len(way.tokens) + 1),
                    "token": way.tokens,
                    "x": way.placed.points[:, 0],
                    "y": way.placed.points[:, 1],
                    "step": np.concatenate([[np.nan], way.steps]),
                    "distance": way.placed.distance,
                    "off": way.placed.off,
                }
            )
            for way in self.ways
        ]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def figure(self) -> go.Figure:
        """Arrows from token to token, over quiet hills; the walk in grey beneath the texts."""
        frame, ink, below = self.frame, INK[self.theme], self._below()
        margin = _MARGIN | {"t": _MARGIN["t"] + 16 * len(below)}
        figure = go.Figure()
        figure.update_layout(
            template=template(self.theme),
            title=heading(self._title(), "<br>".join(below), self.theme) | {"y": 1 - 20 / self.height},
            width=self.width,
            height=self.height,
            margin=margin,
            legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top", "tracegroupgap": 6},
            uirevision="sentence paths",
        )
        if frame is None:
            note = empty_note(
                "Give a backbone and some texts, and see<br>the way from each token to the next.", self.theme
            )
            return (
                figure.update_layout(annotations=[note])
                .update_xaxes(visible=False)
                .update_yaxes(visible=False)
            )
        ranges = spans(frame.points, *(way.placed.points for way in self.ways))
        room = (self.width - margin["l"] - margin["r"], self.height - margin["t"] - margin["b"])
        figure.add_traces(
            cloud_traces(
                frame.points,
                frame.words,
                self.theme,
                landmarks=0,
                name=self._ground(),
                group={"legendrank": 2000},
            )
        )
        drawn = list(enumerate(self.ways))
        for number, way in reversed(drawn):
            figure.add_traces(self._arrows(way, number))
        told = [
            (
                way.placed.points[i],
                way.tokens[i],
                ink["text"] if way.name == WALK else colour_of(number, self.theme),
            )
            for number, way in drawn
            if way.name != WALK
            for i in _by_ends(len(way.tokens))
        ]
        chosen = apart(np.array([t[0] for t in told]), [t[1] for t in told], ranges, room)
        figure.add_scatter(
            x=[told[i][0][0] for i in chosen],
            y=[told[i][0][1] for i in chosen],
            text=[escape(told[i][1]) for i in chosen],
            mode="text",
            textposition="top center",
            textfont={
                "size": 11,
                "color": [told[i][2] for i in chosen],
                "shadow": ", ".join([f"0 0 2px {ink['paper']}"] * 4),
            },
            name="tokens",
            showlegend=False,
            hoverinfo="skip",
        )
        for number, (axis, span) in enumerate(
            zip((figure.update_xaxes, figure.update_yaxes), ranges, strict=True)
        ):
            axis(title_text=axis_title(frame, number), range=span)
        return figure.update_yaxes(scaleanchor="x", scaleratio=1)

    def _arrows(self, way: Way, number: int) -> list[go.Scatter]:
        """The path, and its first token, which plotly does not mark where marks turn with the line."""
        ink, walk = INK[self.theme], way.name == WALK
        colour = ink["quiet"] if walk else colour_of(number, self.theme)
        thin = walk or len(way.tokens) > SHORT
        open_ = np.where(way.placed.off, "-open", "").tolist()
        steps = ["", *(f"<br>{_number(step)} from the one before" for step in way.steps)]
        off = np.where(way.placed.off, "<br>off the map", "").tolist()
        said = [[i + 1, escape(word), steps[i] + off[i]] for i, word in enumerate(way.tokens)]
        points, shared = (
            way.placed.points,
            {
                "legendgroup": way.name,
                "opacity": 0.5 if walk else 0.6 if thin else 0.9,
                "hovertemplate": f"%{{customdata[0]}}: %{{customdata[1]}}%{{customdata[2]}}<extra>{way.name}</extra>",
            },
        )
        return [
            go.Scatter(
                x=points[:, 0],
                y=points[:, 1],
                mode="lines+markers",
                name="<br>".join([*(escape(part) for part in wrap(way.title, 30)), self._mean(way)]),
                line={"color": colour, "width": 1 if thin else 1.8, "dash": "dot" if walk else "solid"},
                marker={
                    "symbol": [f"arrow{shape}" for shape in open_],
                    "angleref": "previous",
                    "size": 7 if thin else 10,
                    "color": colour,
                    "line": {"width": 1 if way.placed.off.any() else 0, "color": colour},
                },
                customdata=said,
                legendrank=1000 + number,
                **shared,
            ),
            go.Scatter(
                x=points[:1, 0],
                y=points[:1, 1],
                mode="markers",
                name=f"first of {way.name}",
                marker={
                    "symbol": f"circle{open_[0]}",
                    "size": 7 if thin else 9,
                    "color": colour,
                    "line": {"width": 1 if open_[0] else 0, "color": colour},
                },
                customdata=said[:1],
                showlegend=False,
                **shared,
            ),
        ]

    def _mean(self, way: Way) -> str:
        """How far the tokens of a path are from one another, and how that is beside the random walk."""
        if not len(way.steps):
            return "one token"
        walk = next((float(other.steps.mean()) for other in self.ways if other.name == WALK), None)
        beside = f", {way.steps.mean() / walk:.2f} × the walk’s" if walk and way.name != WALK else ""
        return f"mean step {_number(way.steps.mean())}{beside}"

    def _ground(self) -> str:
        around = self.around
        if around is None or around.layer is None:
            return "vocabulary"
        return f"{Path(str(self.task)).stem}: activations" if self.task else "vocabulary, each token alone"

    def _title(self) -> str:
        if self.around is None:
            return "Sentences as paths"
        if self.around.layer is None:
            return "Sentences as paths over the token embeddings"
        return f"Sentences as paths over what {self.around.place} reads"

    def _below(self) -> list[str]:
        if self.around is None or self.frame is None:
            return ["from each token to the next"]
        texts = [way for way in self.ways if way.name != WALK]
        off, whole = sum(int(way.placed.off.sum()) for way in texts), sum(len(way.tokens) for way in texts)
        parts = [
            f"{self.around.backbone.name}; a circle is a first token, arrows go to the next",
            f"{off} of the texts’ {whole} tokens are off the map, hollow" if off else "",
            self.frame.note,
        ]
        return lines(parts, self.width)


def _written(token: str) -> str:
    return token.strip() or repr(token)


def _number(value: float) -> str:
    """Three digits, whatever the size."""
    return f"{value:.{max(0, min(3, 2 - int(np.floor(np.log10(abs(value) + 1e-9)))))}f}"


def _by_ends(count: int) -> list[int]:
    """Positions with the most telling first: both ends, then those between in their order."""
    return list(dict.fromkeys([0, count - 1, *range(1, count - 1)]))
