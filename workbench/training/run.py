"""The run directory: everything that is known of one training run, and the only thing that views read.

    config.json         backbone, method, task, FitConfig and versions: enough to start the same run again
    status.json         state (running, paused, stopped, finished, failed), step, steps, and the error if any
    metrics.jsonl       one line for each step
    snapshots/          step-00000010.safetensors: what is trained, at chosen steps, 0 being the start
    checkpoints/        see checkpoint.py
    method/             the trained method, once the run is finished

Files are written whole under another name and then renamed, or are appended to by the line, so that a kill
at any moment leaves a directory from which the run goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.backbones.backbone import Backbone
    from workbench.methods.method import Method


class Run:
    """One training run on disk. Reading never changes it; a run can be read while it is written.

    Args:
        path: the folder of a run.

    Raises:
        WorkbenchError: there is no run there.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.config_path.is_file():
            raise WorkbenchError(
                f"{self.path} holds no run (no config.json); train one there, or see `workbench runs`"
            )

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def name(self) -> str:
        return self.path.name

    # reading

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for: backbone, method, task, fit, versions."""
        return self._json("config.json")

    @property
    def status(self) -> dict[str, Any]:
        """How it stands: state, step, steps, kept_step and error where they apply."""
        return (
            self._json("status.json")
            if (self.path / "status.json").is_file()
            else {"state": "new", "step": 0}
        )

    def metrics(self) -> list[dict[str, Any]]:
        """One dict for each step so far: step, loss, tokens, learning_rate, gradient_norm, seconds, validation."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text().split("\n")[:-1]  # what follows the last newline is still being written
        return [json.loads(line) for line in lines]

    def snapshots(self) -> dict[int, Path]:
        """Step to file, in order; read one with `snapshot`."""
        found = (self.path / "snapshots").glob("step-*.safetensors")
        return {int(p.stem.removeprefix("step-")): p for p in sorted(found)}

    def snapshot(self, step: int) -> dict[str, Any]:
        """Name to numpy array, as the method's `snapshot` names them; `embeddings` is (P, width)."""
        from safetensors.numpy import load_file

        kept = self.snapshots()
        if step not in kept:
            raise WorkbenchError(f"{self.path} has no snapshot of step {step}; it has {sorted(kept)}")
        return load_file(kept[step])

    def load_method(self, backbone: Backbone) -> Method:
        """The trained method. Raises WorkbenchError while the run is not finished."""
        from workbench.methods.method import load_method

        if not (self.path / "method" / "method.json").is_file():
            state = self.status["state"]
            raise WorkbenchError(
                f"{self.path} is {state}, not finished, and has no trained method yet; resume it first"
            )
        return load_method(self.path / "method", backbone)

    @staticmethod
    def list(folder: str | Path = "runs") -> list[Run]:
        """The runs below a folder, newest first; a folder that is not there holds none."""
        found = [
            Run(p.parent) for p in Path(folder).glob("**/config.json") if (p.parent / "status.json").is_file()
        ]
        return sorted(found, key=lambda r: r.config_path.stat().st_mtime, reverse=True)

    # writing; only fit and job do

    @staticmethod
    def create(path: str | Path, config: dict[str, Any]) -> Run:
        """A new run directory. Refuses a folder that is in use, cannot be written, or is on a full disk."""
        path = Path(path)
        Run.refuse_used(path)
        with plain_errors(path):
            (path / "snapshots").mkdir(parents=True, exist_ok=True)
            (path / "checkpoints").mkdir(exist_ok=True)
            write_json(path / "status.json", {"state": "new", "step": 0, "steps": config["fit"]["steps"]})
            write_json(path / "config.json", config)
        return Run(path)

    @staticmethod
    def refuse_used(path: Path) -> None:
        """Raise where a folder holds a run, or anything else."""
        if (path / "config.json").is_file():
            state = Run(path).status["state"]
            raise WorkbenchError(
                f"{path} already holds a run ({state}); pass resume=True, or choose another folder"
            )
        if path.is_dir() and any(p.name != ".lock" for p in path.iterdir()):
            raise WorkbenchError(f"{path} is not empty and holds no run; choose a new folder")

    def write_status(self, **facts: Any) -> None:
        """Replace the status."""
        with plain_errors(self.path):
            write_json(self.path / "status.json", facts)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one step's line."""
        with plain_errors(self.path), (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Keep the lines of the steps up to `step`, so that a resumed run writes every step once."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        with plain_errors(self.path):
            replace_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def write_snapshot(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep what is trained as it is after `step` updates."""
        from safetensors.torch import save_file

        with plain_errors(self.path):
            target = self.path / "snapshots" / f"step-{step:08d}.safetensors"
            partial = target.with_suffix(".partial")
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
            os.replace(partial, target)

    def lock(self) -> Any:
        """Hold the run for writing; a second writer, in this or another process, is refused."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        with plain_errors(self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise WorkbenchError(
                    f"{self.path} is being written by another job; stop that one first"
                ) from None
        return lock

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise WorkbenchError(
                f"the file {self.path / name} is damaged or missing; restore it, or start anew"
            ) from error


def write_json(path: Path, facts: Any) -> None:
    """Write JSON whole or not at all."""
    replace_text(path, json.dumps(facts, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence."""
    try:
        yield
    except OSError as error:
        raise WorkbenchError(
            f"the run directory {path} cannot be written ({(error.strerror or str(error)).lower()}); "
            "free some space or choose another folder; what was there before is untouched"
        ) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # safetensors wraps the operating system's errors
            raise WorkbenchError(
                f"the run directory {path} cannot be written ({error}); free some space or choose another folder"
            ) from error
        raise


def now() -> str:
    """The time for people, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
