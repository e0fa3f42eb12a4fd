"""Where the prompt's vectors are among the vocabulary's, and the way that they came. Reads a run, writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.analysis.projection import Projection
from workbench.views.cloud import written
from workbench.views.theme import INK, VERMILION, Theme, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.training.run import Run


class Movement(View):
    """The prompt of `run` at each of its snapshots, placed in `frame`, a PCA map whose first part is the vocabulary."""

    def __init__(
        self,
        run: Run | None = None,
        frame: Projection | None = None,
        theme: Theme = "light",
        width: int = 440,
        height: int = 430,
    ) -> None:
        self.run, self.frame, self.theme, self.width, self.height = run, frame, theme, width, height
        self._seen: dict[int, np.ndarray] = {}
        self._drawn_for: Projection | None = None

    def show(self, run: Run | None, frame: Path | None) -> None:
        """Turns to another run, and to the frame saved in a file."""
        if run is None or self.run is None or run.path != self.run.path:
            self._seen, self.frame = {}, None
        self.run = run
        if frame is not None and self.frame is None:
            self.frame = Projection.load(frame)

    def snapshots(self) -> dict[int, np.ndarray]:
        """The prompt (P, d) at each step that has a snapshot, in order of steps; each file is read once."""
        if self.run is None:
            return {}
        for step in self.run.snapshots():
            if step not in self._seen:
                self._seen[step] = np.asarray(self.run.snapshot(step)["embeddings"], np.float32)
        return dict(sorted(self._seen.items()))

    def data(self) -> pd.DataFrame:
        """One row a prompt vector and snapshot.

        step; token (1 is the first); x, y (in the frame); distance (to the nearest word or start, see `Placed`); off
        (whether that is off the map); moved (distance from the first snapshot); nearest (the word with the highest
        cosine, at the last snapshot only).
        """
        columns = ["step", "token", "x", "y", "distance", "off", "moved", "nearest"]
        snapshots = self.snapshots()
        if not snapshots or self.frame is None:
            return pd.DataFrame(columns=columns)
        steps, all_vectors = list(snapshots), np.stack(list(snapshots.values()))
        placed, count = self.frame.place(all_vectors), all_vectors.shape[1]
        nearest = [""] * (count * (len(steps) - 1)) + self.frame.nearest(all_vectors[-1], "cosine")
        return pd.DataFrame(
            {
                "step": np.repeat(steps, count),
                "token": np.tile(np.arange(1, count + 1), len(steps)),
                "x": placed.points[..., 0].ravel(),
                "y": placed.points[..., 1].ravel(),
                "distance": placed.distance.ravel(),
                "off": placed.off.ravel(),
                "moved": np.linalg.norm(all_vectors - all_vectors[0], axis=-1).ravel(),
                "nearest": nearest,
            },
            columns=columns,
        )

    def figure(self) -> go.Figure:
        """The vocabulary as a pale cloud; each prompt vector from its start (cross) along its path to now (circle).

        The circle of a vector that is off the map is hollow.
        """
        table, ink = self.data(), INK[self.theme]
        words, texts, marked = self._cloud()
        first = table[table["step"] == table["step"].min()]
        last = table[table["step"] == table["step"].max()]
        trail_x, trail_y = _trails(table)
        few, off = len(last) <= 30, last["off"].to_numpy(bool)
        figure = go.Figure(
            [
                go.Scatter(
                    x=words[:, 0],
                    y=words[:, 1],
                    text=texts,
                    mode="markers",
                    name=self._words_shown(),
                    marker={"size": 4, "color": ink["quiet"], "opacity": 0.28},
                    hovertemplate="%{text}<extra></extra>",
                ),
                go.Scatter(
                    x=words[marked, 0],
                    y=words[marked, 1],
                    text=texts[marked],
                    mode="text",
                    name="landmarks",
                    showlegend=False,
                    textfont={"size": 11, "color": ink["quiet"]},
                    hoverinfo="skip",
                ),
                go.Scatter(
                    x=trail_x,
                    y=trail_y,
                    mode="lines",
                    name="path",
                    line={"color": VERMILION, "width": 1.2},
                    opacity=0.7,
                    hoverinfo="skip",
                ),
                go.Scatter(
                    x=first["x"],
                    y=first["y"],
                    mode="markers",
                    name="start",
                    marker={
                        "symbol": "cross-thin",
                        "size": 7,
                        "line": {"color": ink["first"], "width": 1.4},
                    },
                    hoverinfo="skip",
                ),
                go.Scatter(
                    x=last["x"],
                    y=last["y"],
                    text=last["token"].astype(str) if few else None,
                    customdata=last.assign(said=np.where(off, ", off the map", ""))[
                        ["token", "moved", "nearest", "distance", "said"]
                    ]
                    .to_numpy(object)
                    .tolist(),
                    mode="markers+text" if few else "markers",
                    textposition="top center",
                    textfont={"size": 11, "color": ink["text"]},
                    name="now",
                    marker={
                        "symbol": np.where(off, "circle-open", "circle").tolist(),
                        "size": 8,
                        "color": VERMILION,
                        "line": {
                            "color": np.where(off, VERMILION, ink["paper"]).tolist(),
                            "width": np.where(off, 1.6, 1),
                        },
                    },
                    hovertemplate=(
                        "prompt vector %{customdata[0]}%{customdata[4]}<br>moved %{customdata[1]:.2f}"
                        "<br>nearest word: %{customdata[2]}<br>%{customdata[3]:.1f} × a word's distance to the next,"
                        "<br>from any word or start<extra></extra>"
                    ),
                ),
            ]
        )
        nothing = not len(table)
        figure.update_layout(
            template=template(self.theme),
            title=heading("Where its vectors go", self._subtitle(table), self.theme),
            width=self.width,
            height=self.height,
            annotations=[
                empty_note("The prompt's vectors move here,<br>among the model's words.", self.theme)
            ]
            if nothing
            else [],
            uirevision="movement",
        )
        share = self.frame.explained if self.frame else None
        for number, axis in enumerate((figure.update_xaxes, figure.update_yaxes)):
            part = "" if share is None else f" ({share[number]:.0%} of the variance)"
            axis(title_text=f"PC {number + 1}{part}")
        figure.update_yaxes(scaleanchor="x", scaleratio=1)
        if nothing:
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure

    def _cloud(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """The vocabulary's places and texts, and the words to write on it; worked out once a frame."""
        if self.frame is None:
            return np.zeros((0, 2), np.float32), np.zeros(0, "U1"), []
        if self._drawn_for is not self.frame:
            _, places = self.frame.part(0)
            texts = self.frame.words[: len(places)]
            self._drawn_for, self._drawn = self.frame, (places, np.array(texts), written(texts, places))
        return self._drawn

    def _words_shown(self) -> str:
        kept, whole = (len(self.frame.part(0)[0]), self.frame.parts[0]) if self.frame else (0, 0)
        return f"{kept:,} of {whole:,} words" if kept < whole else "words"

    def _subtitle(self, table: pd.DataFrame) -> str:
        if self.frame is None or not len(table):
            return "in the main plane of the vocabulary"
        snapshots = self.snapshots()
        steps = list(snapshots)
        parts = [f"step {steps[-1]}"]
        if steps[-1] > steps[0]:
            share = self.frame.share_seen(snapshots[steps[0]], snapshots[steps[-1]])
            parts.append(f"the plane shows {share:.0%} of their way")
        last = table[table["step"] == steps[-1]]
        if off := int(last["off"].sum()):
            parts.append(f"{off} of {len(last)} off the map")
        return "; ".join(parts)


def _trails(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """One line for all paths: each vector's points in order of steps, a gap (nan) between two vectors."""
    paths = [group for _, group in table.sort_values(["token", "step"]).groupby("token")]
    if not paths:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    gap = np.array([np.nan], np.float32)
    x = [part for path in paths for part in (path["x"].to_numpy(np.float32), gap)]
    y = [part for path in paths for part in (path["y"].to_numpy(np.float32), gap)]
    return np.concatenate(x), np.concatenate(y)
