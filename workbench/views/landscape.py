"""The landscape that prompts move in: from prior to posterior, over the vocabulary and what tasks make of a layer.

    Landscape(runs)                                         # any number of runs of one backbone
    Landscape(runs, place="layer 3", tasks=("reading", "order-2"), step=40)

The frame is fitted once, on the vocabulary and on where the prompts started (of a layer on the tasks' activations as
well), and prompts are placed in it: a point moves because its vector did. What lies far from all that the frame was
fitted to is drawn hollow and counted, since its place on the map says little. Reads runs and a backbone; trains
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.analysis.projection import Placed, Projection, ProjectionConfig, fit_projection
from workbench.analysis.reference import Reference
from workbench.analysis.surroundings import EMBEDDINGS, Surroundings
from workbench.errors import WorkbenchError
from workbench.views.bands import COLOURS, MOST_GROUPS, WIDE, colour_of
from workbench.views.cloud import cloud_traces
from workbench.views.curves import listed, run_names
from workbench.views.groups import Group, group_runs
from workbench.views.maps import axis_title, spans, with_slider, within
from workbench.views.page import figure_part
from workbench.views.theme import INK, Theme, colours, empty_note, heading, template
from workbench.views.view import View

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone
    from workbench.training.preview import Preview
    from workbench.training.run import Run

    Travelled = Run | Preview

#: Steps that the slider of a saved page can stand at; of more snapshots evenly chosen ones.
MOST_FRAMES = 40

#: How the activations of each task are marked; prompts are filled circles.
TASK_MARKS = ("triangle-up", "square", "diamond", "x")

Key = tuple[Path, int]
"""A run's path, and a vector's number from 1."""


@dataclass(frozen=True)
class Shown:
    """The vectors of one group at one step. m vectors, of all its runs that have begun."""

    keys: list[Key]
    places: NDArray[np.float32]
    """(m, 2)"""
    off: NDArray[np.bool_]
    """(m,)"""
    vectors: NDArray[np.float32]
    """(m, d)"""
    words: list[str]
    """m, of the nearest token each."""
    far: NDArray[np.float64]
    """(m,) how far that is, Euclidean."""


class Landscape(View):
    """The prompts of `runs` in one space, at one step.

    Args:
        runs: runs or previews of one backbone; set it and call `update()` to show others.
        place: the space: "embeddings", or "layer 3" for what that layer reads, where the method has vectors there.
        tasks: tasks whose activations are drawn as well, names or files.
        step: the step that is shown, or the last snapshot before it; None for the last.
        projection: how the frame is fitted.
        backbone: the runs' model; without it the one that they name is loaded.
        cache: a folder that keeps fitted frames.

    Attributes:
        brushed: the vectors whose whole path is drawn, (run's path, number from 1).
        only: names of the groups that are drawn; None for all. The frame is that of all of them.
    """

    def __init__(
        self,
        runs: Travelled | Iterable[Travelled] | None = None,
        place: str = EMBEDDINGS,
        tasks: Sequence[str] = (),
        step: int | None = None,
        projection: ProjectionConfig | None = None,
        backbone: Backbone | None = None,
        cache: Path | None = None,
        theme: Theme = "light",
        width: int = WIDE,
        height: int = 600,
    ) -> None:
        self.runs = listed(runs)
        self.place, self.tasks, self.step = place, tuple(tasks), step
        self.projection, self.backbone, self.cache = projection or ProjectionConfig(), backbone, cache
        self.theme, self.width, self.height = theme, width, height
        self.brushed: set[Key] = set()
        self.only: Collection[str] | None = None
        self._around: Surroundings | None = None
        self._words: tuple[Surroundings, Reference] | None = None
        self._vectors: dict[tuple[Path, int, str], NDArray[np.float32]] = {}
        self._kept: dict[Path, list[int]] = {}
        self._known: list[Any] = []
        self._grouped: list[Group] = []
        self._placed: dict[tuple[Path, int | None], Placed] = {}
        self._near: dict[tuple[Path, int | None, str], tuple[list[str], NDArray[np.float64]]] = {}
        self._frame: tuple[Any, Projection] | None = None
        self._clouds: dict[int, list[Any]] = {}

    # what it reads

    @property
    def around(self) -> Surroundings | None:
        """What is around the prompts; None without runs.

        Raises:
            WorkbenchError: runs of several backbones, or a place that theirs does not have.
        """
        names = list(dict.fromkeys(str(run.config["backbone"]["name"]) for run in self.runs))
        if not names:
            return None
        if len(names) > 1:
            raise WorkbenchError(
                f"these runs are on {' and '.join(names)}, whose vectors lie in different spaces; show the runs of one"
            )
        if self.backbone is None or self.backbone.name != names[0]:
            from workbench.training.work import shared_backbone

            self.backbone = shared_backbone(names[0])
        if self._around is None or (self._around.backbone, self._around.place) != (self.backbone, self.place):
            self._around = Surroundings(self.backbone, self.place)
        return self._around

    def look(self) -> None:
        """Sees which snapshots there are now. `data`, `figure`, `animated`, `groups` and `steps` do so; the rest goes by that."""
        self._kept = {run.path: sorted(run.snapshots()) for run in self.runs}
        known = [(run.path, type(run)) for run in self.runs]
        if known != self._known:  # what a run was asked for does not change
            self._known, self._grouped = known, group_runs(self.runs)

    def every(self) -> list[Group]:
        """All runs, those that differ in nothing but seeds together."""
        return self._grouped

    def groups(self) -> list[Group]:
        """The runs that have vectors in this place, those that differ in nothing but seeds together."""
        self.look()
        return self._groups

    @property
    def _groups(self) -> list[Group]:
        return [
            Group(group.name, kept, group.settings)
            for group in self._grouped
            if (kept := tuple(run for run in group.runs if self._at(run, 0) is not None))
        ][:MOST_GROUPS]

    def steps(self) -> list[int]:
        """Every step that has a snapshot, of any run."""
        self.look()
        return self._steps

    @property
    def _steps(self) -> list[int]:
        return sorted({step for steps in self._kept.values() for step in steps})

    def frame(self) -> Projection | None:
        """The frame, fitted when it is first asked for, and again only if other runs, tasks or settings ask for it."""
        around, groups = self.around, self._groups
        if around is None or not groups:
            return None
        starts = [self._at(run, 0) for group in groups for run in group.runs]
        fitted = [around.vocabulary, *starts]
        if around.layer is not None:
            fitted += [around.activations(task) for task in self.tasks]
        key = (self.projection, around.backbone.name, self.place, self.tasks, *map(_mark, starts))
        if self._frame is None or self._frame[0] != key:
            named = {"backbone": around.backbone.name, "place": self.place, "tasks": list(self.tasks)}
            frame = fit_projection(
                np.concatenate(fitted),
                self.projection,
                key=named,
                cache=self.cache,
                words=around.words,
                parts=[len(part) for part in fitted],
            )
            self._frame, self._placed, self._clouds = (key, frame), {}, {}
        return self._frame[1]

    def _last(self, run: Travelled, step: int) -> int | None:
        """The last snapshot of a run up to a step."""
        return max((kept for kept in self._kept.get(run.path, ()) if kept <= step), default=None)

    def _at(self, run: Travelled, step: int) -> Any:
        """(P, d) of a run at a step; None where it has none in this place. Each file is read once."""
        last = self._last(run, step)
        if last is None:
            return None
        key = (run.path, last, self.place)
        if key not in self._vectors:
            for place, vectors in run.snapshot(last).items():
                self._vectors[run.path, last, place] = np.asarray(vectors, np.float32)
        return self._vectors.get(key)

    # what it makes of that

    def shown(self, step: int | None = None) -> dict[str, Shown]:
        """Group to its vectors at `step`, the step of the view unless told otherwise."""
        frame = self.frame()
        if frame is None:
            return {}
        step = step if step is not None else self.step if self.step is not None else self._steps[-1]
        found = {}
        for group in self._groups:
            vectors = [self._at(run, step) for run in group.runs]
            placed = [self._place(run, step, frame) for run in group.runs]
            near = [self._named(run, step) for run in group.runs]
            found[group.name] = Shown(
                [
                    (run.path, i + 1)
                    for run, own in zip(group.runs, vectors, strict=True)
                    for i in range(len(own))
                ],
                np.concatenate([each.points for each in placed]),
                np.concatenate([each.off for each in placed]),
                np.concatenate(vectors),
                [word for words, _ in near for word in words],
                np.concatenate([far for _, far in near]),
            )
        return found

    def _place(self, run: Travelled, step: int, frame: Projection) -> Placed:
        key = (run.path, self._last(run, step))
        if key not in self._placed:
            self._placed[key] = frame.place(self._at(run, step))
        return self._placed[key]

    def _named(self, run: Travelled, step: int) -> tuple[list[str], NDArray[np.float64]]:
        """The nearest token of each vector of a run, and how far it is."""
        key = (run.path, self._last(run, step), self.place)
        if key not in self._near:
            self._near[key] = self.nearest(self._at(run, step))
        return self._near[key]

    def paths(self, keys: Iterable[Key], step: int | None = None) -> dict[Key, NDArray[np.float32]]:
        """Vector to its places (k, 2) at every snapshot up to `step`, the step of the view unless told otherwise."""
        frame, wanted = self.frame(), list(keys)
        step = step if step is not None else self.step
        runs = {run.path: run for run in self.runs}
        found = {}
        for path, number in wanted:
            if frame is None or path not in runs:
                continue
            kept = [at for at in self._kept[path] if step is None or at <= step]
            found[path, number] = np.stack(
                [self._place(runs[path], at, frame).points[number - 1] for at in kept]
            )
        return found

    def data(self) -> pd.DataFrame:
        """One row a vector and step.

        run; group; step; vector (from 1); x, y (in the frame); distance (to what the frame was fitted to, see
        `Placed`); off (whether that is off the map); moved (distance from the start, in the vectors' own unit);
        nearest, nearest_distance (the token that is nearest, and how far it is).
        """
        columns = ["run", "group", "step", "vector", "x", "y", "distance", "off", "moved", "nearest", "nearest_distance"]  # fmt: skip
        self.look()
        frame, around, names, parts = self.frame(), self.around, run_names(self.runs), []
        if frame is None or around is None:
            return pd.DataFrame(columns=columns)
        for group in self._groups:
            for run in group.runs:
                start = self._at(run, 0)
                for step in self._kept[run.path]:
                    vectors, placed = self._at(run, step), self._place(run, step, frame)
                    words, far = self._named(run, step)
                    facts = {
                        "run": names[run.path],
                        "group": group.name,
                        "step": step,
                        "vector": np.arange(1, len(vectors) + 1),
                        "x": placed.points[:, 0],
                        "y": placed.points[:, 1],
                        "distance": placed.distance,
                        "off": placed.off,
                        "moved": np.linalg.norm(vectors - start, axis=1),
                        "nearest": words,
                        "nearest_distance": far,
                    }
                    parts.append(pd.DataFrame(facts))
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def nearest(self, vectors: NDArray[np.float32]) -> tuple[list[str], NDArray[np.float64]]:
        """The nearest token of each of (n, d) vectors, and how far it is, Euclidean."""
        around = self.around
        if around is None:
            return [], np.zeros(0)
        found = self.reference.nearest(vectors)
        return [around.words[i] for i in found.row[:, 0]], found.distance[:, 0]

    @property
    def reference(self) -> Reference:
        """The tokens, to be near to. Raises WorkbenchError without runs."""
        around = self.around
        if around is None:
            raise WorkbenchError("a landscape without runs has no tokens; give it runs")
        if self._words is None or self._words[0] is not around:
            self._words = (around, Reference(around.vocabulary))
        return self._words[1]

    # how it is drawn

    def figure(self) -> go.Figure:
        """The vocabulary as quiet hills; tasks as small marks; each prompt from its start (cross) to now (circle)."""
        self.look()
        figure = go.Figure([*self._background(), *self._moving(self.step)])
        frame = self.frame()
        figure.update_layout(
            template=template(self.theme),
            title=heading(self._title(), self._below(self.step), self.theme),
            width=self.width,
            height=self.height,
            margin={"t": self._top()},
            legend={"itemsizing": "constant", "tracegroupgap": 0},
            dragmode="lasso",
            newselection={"line": {"color": INK[self.theme]["quiet"], "width": 1}},
            modebar={"remove": ["zoomIn", "zoomOut", "autoScale"]},
            uirevision=f"landscape {self.place} {self.projection}",
            annotations=[] if frame else [empty_note(self._nothing(), self.theme)],
        )
        if frame is None:
            return figure.update_xaxes(visible=False).update_yaxes(visible=False)
        been = spans(frame.points, *(placed.points for placed in self._placed.values()), room=0.04)
        for number, axis in enumerate((figure.update_xaxes, figure.update_yaxes)):
            axis(title_text=axis_title(frame, number), range=been[number], autorange=False)
        return figure.update_yaxes(scaleanchor="x", scaleratio=1)

    def inside(self, outlines: Sequence[NDArray[np.float64]]) -> set[Key]:
        """The vectors whose circles lie in outlines (k, 2) drawn on the map, of the groups and at the step that are shown."""
        return {
            key
            for now in self._those(self.shown()).values()
            for key, inside in zip(now.keys, within(now.places, outlines), strict=True)
            if inside
        }

    def animated(self) -> go.Figure:
        """The figure with a slider over the steps and a button that plays them; for a page, as a widget has its own."""
        figure, steps = self.figure(), self._steps
        if self.frame() is None or len(steps) < 2:
            return figure
        if len(steps) > MOST_FRAMES:
            steps = [steps[i] for i in np.linspace(0, len(steps) - 1, MOST_FRAMES).round().astype(int)]
        still = len(figure.data) - len(self._moving(steps[-1]))
        moving = list(range(still, len(figure.data)))
        figure.frames = [
            go.Frame(
                name=str(step),
                data=self._moving(step),
                traces=moving,
                layout={"title": heading(self._title(), self._below(step), self.theme)},
            )
            for step in steps
        ]
        now = max((i for i, step in enumerate(steps) if self.step is None or step <= self.step), default=0)
        return with_slider(figure, "step ", now, self.theme)

    def part(self) -> str:
        """The figure with its slider, as a piece of a page."""
        return figure_part(self.animated())

    def _background(self) -> list[Any]:
        """What stands still: the vocabulary, and the tasks; the same arrays as long as the frame is the same."""
        frame, around = self.frame(), self.around
        if frame is None or around is None:
            return []
        if id(frame) not in self._clouds:
            kept, places = frame.part(0)
            traces = list(cloud_traces(places, [around.words[i] for i in kept], self.theme))
            for number, task in enumerate(self.tasks):
                placed = frame.place(around.activations(task))
                traces.append(
                    go.Scatter(
                        x=placed.points[:, 0],
                        y=placed.points[:, 1],
                        mode="markers",
                        name=f"{Path(task).stem}: activations",
                        marker={
                            "symbol": TASK_MARKS[number % len(TASK_MARKS)],
                            "size": 4,
                            "color": colours(self.theme)[-1 - number % COLOURS],
                            "opacity": 0.4,
                        },
                        hovertemplate=f"{escape(task)}<extra></extra>",
                    )
                )
            for trace in traces:
                if trace.type == "scatter":  # what is drawn round is the prompts alone
                    kind = "textfont" if trace.mode == "text" else "marker"
                    faint = {} if trace.mode == "text" else {"opacity": trace.marker.opacity}
                    trace.unselected = {kind: {**faint, "color": trace[kind].color}}
            self._clouds = {id(frame): traces}
        return self._clouds[id(frame)]

    def _moving(self, step: int | None) -> list[go.Scatter]:
        """Three traces a group, whatever the step: paths, starts, now."""
        ink, traces = INK[self.theme], []
        starts = self.shown(0)
        last = self._steps[-1] if self._steps else 0
        for number, (name, now) in enumerate(self.shown(step).items()):
            if self.only is not None and name not in self.only:
                continue
            colour, first = colour_of(number, self.theme), starts[name]
            brushed = [key for key in now.keys if key in self.brushed]
            trail = self.paths(brushed or now.keys, step if step is not None else last)
            x, y = joined(list(trail.values()))
            few = len(now.keys) <= 30
            moved = np.linalg.norm(now.vectors - first.vectors, axis=1)
            group = {"legendgroup": name, "name": escape(name)}
            traces += [
                go.Scatter(
                    x=x,
                    y=y,
                    mode="lines",
                    line={"color": colour, "width": 2 if brushed else 1},
                    opacity=0.9 if brushed else 0.4 if few else 0.25,
                    hoverinfo="skip",
                    showlegend=False,
                    **group,
                ),
                go.Scatter(
                    x=first.places[:, 0],
                    y=first.places[:, 1],
                    mode="markers",
                    marker={"symbol": "cross-thin", "size": 6, "line": {"color": colour, "width": 1.2}},
                    opacity=0.75,
                    hoverinfo="skip",
                    showlegend=False,
                    **group,
                ),
                go.Scatter(
                    x=now.places[:, 0],
                    y=now.places[:, 1],
                    mode="markers",
                    marker={
                        "symbol": np.where(now.off, "circle-open", "circle").tolist(),
                        "size": 8,
                        "color": colour,
                        "line": {
                            "width": np.where(now.off, 1.6, 0.8),
                            "color": np.where(now.off, colour, ink["paper"]).tolist(),
                        },
                    },
                    selectedpoints=[i for i, key in enumerate(now.keys) if key in self.brushed]
                    if self.brushed
                    else None,
                    unselected={"marker": {"opacity": 0.35}},
                    customdata=[
                        [path.name, vector, word, f"{gap:.3g}", f"{went:.3g}", ", off the map" if off else ""]
                        for (path, vector), word, gap, went, off in zip(
                            now.keys, now.words, now.far, moved, now.off, strict=True
                        )
                    ],
                    hovertemplate=(
                        "%{customdata[0]}, vector %{customdata[1]}%{customdata[5]}<br>nearest token: %{customdata[2]} "
                        f"(at %{{customdata[3]}})<br>moved %{{customdata[4]}}<extra>{escape(name)}</extra>"
                    ),
                    **group,
                ),
            ]
        return traces

    def _title(self) -> str:
        where = "the vocabulary" if self.place == EMBEDDINGS else f"what {self.place} reads"
        return f"Prompts in {where}, from prior to posterior"

    def _below(self, step: int | None) -> str:
        """What the marks mean, and what the map cannot show; two lines, and more on a narrow figure."""
        frame, steps = self.frame(), self._steps
        if frame is None:
            return "each prompt vector from its start to where training takes it"
        at, shown = steps[-1] if step is None else step, self._those(self.shown(step))
        off = sum(int(now.off.sum()) for now in shown.values())
        whole = sum(len(now.keys) for now in shown.values())
        marks = f"step {at}; cross: start; circle: now, hollow where it is off the map ({off} of {whole})"
        parts = []
        if at and frame.linear:
            starts = np.concatenate([now.vectors for now in self._those(self.shown(0)).values()])
            ends = np.concatenate([now.vectors for now in shown.values()])
            parts.append(f"this plane shows {frame.share_seen(starts, ends):.0%} of their way")
        if frame.note:
            parts.append(frame.note)
        lines = [
            line for part in (marks, "; ".join(parts)) for line in wrap(part, int((self.width - 76) / 6))
        ]
        return "<br>".join(lines)

    def _those(self, shown: dict[str, Shown]) -> dict[str, Shown]:
        """Of all groups those that are drawn."""
        return {name: now for name, now in shown.items() if self.only is None or name in self.only}

    def _top(self) -> int:
        """Pixels above the data, for the heading and the legend."""
        names = [
            f"{'vocabulary':40}",
            *(f"{Path(task).stem}: activations" for task in self.tasks),
            *self.shown(0),
        ]
        rows, used = 1, 0.0
        for name in names:
            wide = 46 + 6.3 * len(name)
            rows, used = (rows, used + wide) if used + wide < self.width - 80 else (rows + 1, wide)
        return 52 + 16 * (self._below(self.step).count("<br>") + 1) + 21 * rows

    def _nothing(self) -> str:
        if not self.runs:
            return "Choose priors, and see here<br>where their prompts would start."
        if not self._steps:
            return "The prompts appear here<br>as soon as they are drawn."
        return f"None of these runs has vectors at {self.place}."


def joined(paths: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Several paths (k, 2) as one line: a gap (nan) after each."""
    if not paths:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    gap = np.full((1, 2), np.nan, np.float32)
    line = np.concatenate([part for path in paths for part in (path, gap)]).astype(np.float32)
    return line[:, 0], line[:, 1]


def _mark(vectors: NDArray[np.float32]) -> bytes:
    """Enough to tell one draw from another."""
    return hashlib.sha256(vectors.tobytes()).digest()
