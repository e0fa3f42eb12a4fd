"""Where the prompt's vectors are among the vocabulary's, and the way that they came. Reads a run, writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.analysis.frame import Frame
from workbench.views.cloud import written
from workbench.views.theme import INK, VERMILION, Theme, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.training.run import Run


class Movement(View):
    """The prompt of `run` at each of its snapshots, placed in `frame`."""

    def __init__(
        self,
        run: Run | None = None,
        frame: Frame | None = None,
        theme: Theme = "light",
        width: int = 440,
        height: int = 430,
    ) -> None:
        self.run, self.frame, self.theme, self.width, self.height = run, frame, theme, width, height
        self._seen: dict[int, np.ndarray] = {}
        self._drawn_for: Frame | None = None

    def show(self, run: Run | None, frame: Path | None) -> None:
        """Turns to another run, and to the frame saved in a file."""
        if run is None or self.run is None or run.path != self.run.path:
            self._seen, self.frame = {}, None
        self.run = run
        if frame is not None and self.frame is None:
            self.frame = Frame.load(frame)

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

        step; token (1 is the first); x, y (in the frame); moved (distance from the first snapshot); off_plane
        (distance from the plane); nearest (the word with the highest cosine, at the last snapshot only).
        """
        columns = ["step", "token", "x", "y", "moved", "off_plane", "nearest"]
        snapshots = self.snapshots()
        if not snapshots or self.frame is None:
            return pd.DataFrame(columns=columns)
        steps, all_vectors = list(snapshots), np.stack(list(snapshots.values()))
        placed, count = self.frame.place(all_vectors), all_vectors.shape[1]
        nearest = [""] * (count * (len(steps) - 1)) + self.frame.nearest(all_vectors[-1])
        return pd.DataFrame(
            {
                "step": np.repeat(steps, count),
                "token": np.tile(np.arange(1, count + 1), len(steps)),
                "x": placed[..., 0].ravel(),
                "y": placed[..., 1].ravel(),
                "moved": np.linalg.norm(all_vectors - all_vectors[0], axis=-1).ravel(),
                "off_plane": self.frame.distance(all_vectors).ravel(),
                "nearest": nearest,
            },
            columns=columns,
        )

    def figure(self) -> go.Figure:
        """The vocabulary as a pale cloud; each prompt vector from its start (ring) along its path to now (dot)."""
        table, ink = self.data(), INK[self.theme]
        words, texts, marked = self._cloud()
        first = table[table["step"] == table["step"].min()]
        last = table[table["step"] == table["step"].max()]
        trail_x, trail_y = _trails(table)
        few = len(last) <= 30
        figure = go.Figure(
            [
                go.Scatter(
                    x=words[:, 0],
                    y=words[:, 1],
                    text=texts,
                    mode="markers",
                    name="words",
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
                    marker={"size": 7, "color": ink["paper"], "line": {"color": ink["first"], "width": 1.6}},
                    hoverinfo="skip",
                ),
                go.Scatter(
                    x=last["x"],
                    y=last["y"],
                    text=last["token"].astype(str) if few else None,
                    customdata=np.column_stack(
                        [last["token"], last["moved"], last["nearest"], last["off_plane"]]
                    ).tolist(),
                    mode="markers+text" if few else "markers",
                    textposition="top center",
                    textfont={"size": 11, "color": ink["text"]},
                    name="now",
                    marker={"size": 8, "color": VERMILION, "line": {"color": ink["paper"], "width": 1}},
                    hovertemplate=(
                        "prompt vector %{customdata[0]}<br>moved %{customdata[1]:.2f}"
                        "<br>%{customdata[3]:.2f} off this plane<br>nearest word: %{customdata[2]}<extra></extra>"
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
        share = self.frame.explained * 100 if self.frame else (None, None)
        for axis, number, part in ((figure.update_xaxes, 1, share[0]), (figure.update_yaxes, 2, share[1])):
            axis(title_text=f"PC {number}" + (f" ({part:.0f} % of the variance)" if part is not None else ""))
        figure.update_yaxes(scaleanchor="x", scaleratio=1)
        if nothing:
            figure.update_xaxes(visible=False).update_yaxes(visible=False)
        return figure

    def _cloud(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """The vocabulary's places and texts, and the words to write on it; worked out once a frame."""
        if self.frame is None:
            return np.zeros((0, 2), np.float32), np.zeros(0, "U1"), []
        if self._drawn_for is not self.frame:
            places, texts = self.frame.place(self.frame.vocabulary), np.array(self.frame.words)
            self._drawn_for, self._drawn = self.frame, (places, texts, written(self.frame.words, places))
        return self._drawn

    def _subtitle(self, table: pd.DataFrame) -> str:
        if self.frame is None or not len(table):
            return "in the main plane of the vocabulary"
        snapshots = self.snapshots()
        steps = list(snapshots)
        parts = [f"step {steps[-1]}"]
        if steps[-1] > steps[0]:
            share = self.frame.share_seen(snapshots[steps[0]], snapshots[steps[-1]])
            parts.append(f"the plane shows {share:.0%} of their way")
        if len(self.frame.words) < self.frame.total:
            parts.append(f"{len(self.frame.words):,} of {self.frame.total:,} words")
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
