"""Where a job stands, as a panel says it: from the runs' directories to a track, a sentence, and what went wrong.

It reads runs and starts a job in a thread; it owns no widget.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from workbench.errors import WorkbenchError
from workbench.training.job import Job
from workbench.training.run import Run
from workbench.views.tail import last_records

METRICS = "metrics.jsonl"

#: Which of several runs speaks for all.
_FIRST = ("running", "paused", "interrupted", "new", "stopped", "failed", "finished")

STYLE = """
.wb-panel { max-width: 920px; padding: 4px 10px 10px 2px; background: var(--wb-paper); }
.wb-panel .widget-html { margin: 0; }
.wb-panel .wb-buttons { column-gap: 8px; margin: 12px 0 2px; align-items: center; }
.wb-panel .wb-buttons button { height: 32px; line-height: 32px; width: 104px; margin: 0; border-radius: 4px; }
.wb-panel .wb-status { font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--wb-text);
  font-variant-numeric: tabular-nums; margin-bottom: 8px; }
.wb-panel .wb-status small { color: var(--wb-quiet); font-size: 12px; }
.wb-panel .wb-track { height: 4px; border-radius: 2px; background: var(--wb-line); margin: 8px 0 6px; }
.wb-panel .wb-track > div { height: 4px; border-radius: 2px; background: var(--wb-first); transition: width .2s linear; }
.wb-panel .wb-track.wb-paused > div { background: var(--wb-quiet); }
.wb-panel .wb-track.wb-failed > div { background: var(--wb-second); }
.wb-panel .wb-track.wb-finished > div { background: var(--wb-good); }
.wb-panel .wb-error { border-left: 3px solid var(--wb-second); padding: 6px 12px; margin: 8px 0; }
.wb-panel .wb-error pre { font-size: 11px; line-height: 1.4; overflow-x: auto; color: var(--wb-quiet); }
.wb-panel .wb-error summary { cursor: pointer; color: var(--wb-quiet); font-size: 12px; margin-top: 4px; }
"""

Stage = Literal["loading", "training", "paused", "answering", "finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Moment:
    """Where a piece of work stands: all that the panel's status line is made from."""

    stage: Stage
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds_left: float | None = None
    note: str = ""
    """What it is doing, where the stage alone does not say."""
    error: str = ""
    trace: str = ""


class Start(threading.Thread):
    """Starts a job, which reads libraries for some seconds first; then does what is to be done beside it.

    Args:
        job: what to start.
        beside: called with the job once it has begun.

    Attributes:
        begun: the job has its directory, which says from then on how it stands.
        error, trace: what went wrong, here and not in the job.
    """

    def __init__(self, job: Job, beside: Callable[[Job], None] | None = None) -> None:
        super().__init__(name=f"start of {job.run_dir.name}", daemon=True)
        self.job, self.beside = job, beside
        self.begun, self.error, self.trace = False, "", ""
        self._unwanted = threading.Event()

    def run(self) -> None:
        """Does it; what goes wrong is kept for the panel, which says it in one sentence."""
        try:
            self.job.start()
            self.begun = True
            if self._unwanted.is_set():
                self.job.stop()
            if self.beside is not None:
                self.beside(self.job)
        except Exception as error:
            known = isinstance(error, WorkbenchError)
            self.error = str(error) if known else f"{type(error).__name__}: {error}"
            self.trace = traceback.format_exc()

    def stop(self) -> None:
        """Has the job stopped as soon as it has begun."""
        self._unwanted.set()


def moment(runs: Sequence[Run], start: Start | None = None) -> Moment:
    """Where runs of one job stand, from their directories; before these are there, from what is to make them.

    Of several the one that speaks for all is the first at work, or else paused, interrupted, stopped, failed, finished;
    the loss is their mean.
    """
    begun = [(run, run.state) for run in runs]
    if start is not None and not start.begun and not start.error:
        return Moment("loading", **_facts([run for run, _ in begun]), note="reading the libraries")
    if not begun:
        return Moment("failed", error=start.error, trace=start.trace) if start else Moment("interrupted")
    run, state = min(begun, key=lambda one: _FIRST.index(one[1]))
    facts, status = (
        _facts([run, *(other for other, its in begun if its == state and other is not run)]),
        run.status,
    )
    failed = [(other, other.status.get("error", "")) for other, its in begun if its == "failed"]
    error = str(failed[0][1]) if failed else ""
    if error and len(begun) > 1:
        error = f"{len(failed)} of {len(begun)} runs failed, {failed[0][0].name}: {error}"
    said: dict[str, Any] = {"error": error, "trace": (failed[0][0].details or "") if failed else ""}
    if state == "running":
        stage = status.get("stage", "training")
        recent = last_records(run.path / METRICS, 20) if stage == "training" else []
        left = (
            fmean(record["seconds"] for record in recent) * (facts["steps"] - facts["step"])
            if recent
            else None
        )
        return Moment(stage, **facts, seconds_left=left, note=status.get("note", ""), **said)
    return Moment("interrupted" if state == "new" else state, **facts, **said)  # type: ignore[arg-type]


def _facts(runs: Sequence[Run]) -> dict[str, Any]:
    """Step and steps of the first run, and the mean loss of all."""
    last = [(last_records(run.path / METRICS, 1) or [{}])[-1] for run in runs]
    losses = [record["loss"] for record in last if record.get("loss") is not None]
    return {
        "step": last[0].get("step", 0) if last else 0,
        "steps": runs[0].config["fit"]["steps"] if runs else 0,
        "loss": fmean(losses) if losses else None,
    }


def status_html(now: Moment | None, path: Path | None) -> str:
    """The track of the progress, and one sentence on where things stand."""
    if now is None:
        return (
            "<div class='wb-status'><div class='wb-track'></div>Choose what to train, and press Train.</div>"
        )
    done = now.step / now.steps if now.steps else 0.0
    step = f"step {now.step:,} of {now.steps:,}"
    loss = f" · loss {now.loss:.3f}" if now.loss is not None else ""
    left = f" · about {seconds_text(now.seconds_left)} left" if now.seconds_left is not None else ""
    text = {
        "loading": f"Getting ready: {escape(now.note)} …",
        "training": f"Training: {step}{loss}{left}",
        "paused": f"Paused at {step}{loss}",
        "answering": f"Trained, {step}{loss}. Now {escape(now.note)} …",
        "finished": f"Finished: {step}{loss}",
        "stopped": f"Stopped at {step}{loss}",
        "interrupted": f"Interrupted at {step}: its kernel ended. Resume goes on from the last checkpoint.",
        "failed": f"Failed at {step}" if now.step else "Failed before the first step",
    }[now.stage]
    where = (
        f"<br><small>kept in {escape(_near(path))}</small>"
        if path and now.stage in ("finished", "stopped")
        else ""
    )
    track = f"<div class='wb-track wb-{now.stage}'><div style='width:{done:.1%}'></div></div>"
    return f"<div class='wb-status'>{track}{text}{where}</div>" + (
        fault_html(now.error, now.trace) if now.error else ""
    )


def fault_html(sentence: str, trace: str) -> str:
    """What went wrong, in its sentence; the traceback is folded away below it."""
    folded = (
        f"<details><summary>Where it happened</summary><pre>{escape(trace)}</pre></details>" if trace else ""
    )
    return f"<div class='wb-error' role='alert'>{escape(sentence)}{folded}</div>"


def seconds_text(seconds: float) -> str:
    """A time left as people say it: `8 s`, `2 min`, `1 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _near(path: Path) -> str:
    """A path as seen from where the notebook runs, if that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
