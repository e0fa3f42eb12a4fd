"""The run directory: everything that is known of one training run, and the only thing that views read.

    config.json         backbone, method, task, FitConfig and versions: enough to start the same run again
    status.json         state (new, running, paused, stopped, finished, failed), step, steps, and the error if any;
                        of a job at work also its stage (loading, training, answering) and a note for people
    control.json        what a job is asked to do: go, pause, stop, detach; anybody may write it
                        (of several runs in one job: in the directory of the first)
    metrics.jsonl       one line for each step
    snapshots/          step-00000010.safetensors: what is trained, at chosen steps, 0 being the start
    checkpoints/        see checkpoint.py
    method/             the trained method, once the run is finished
    answers.json        what a job was answered, see answers.py
    traceback.txt       where a job failed; output.txt is what one in a process of its own printed
    .lock               held by whoever writes the run, see Lock

Files are written whole under another name and then renamed, or are appended to by the line, so that a kill
at any moment leaves a directory from which the run goes on.
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.backbones.backbone import Backbone
    from workbench.methods.method import Method

ALIVE = ("running", "paused")
"""States that need somebody who writes the run; where nobody does, it was interrupted."""
OVER = ("finished", "failed")
"""States that a run comes to by itself."""


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
        """How it was last said to stand: state, step, steps, and where they apply kept_step, error, stage and note."""
        return (
            self._json("status.json")
            if (self.path / "status.json").is_file()
            else {"state": "new", "step": 0}
        )

    @property
    def state(self) -> str:
        """`status["state"]`, but "interrupted" where what should be writing the run is gone, killed for instance."""
        state = self.status["state"]
        if state in ALIVE and self.holder is None:
            state = self.status["state"]  # it may have ended between the two looks
            return "interrupted" if state in ALIVE else str(state)
        return str(state)

    @property
    def holder(self) -> int | None:
        """The process that is writing the run now, or None."""
        return Lock.holder(self.path)

    @property
    def details(self) -> str | None:
        """The traceback of a job that failed."""
        path = self.path / "traceback.txt"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def order(self) -> tuple[str, int]:
        """What the job is asked to do (go, pause, stop, detach), and when that was said, in ns since the epoch."""
        try:
            said = json.loads((self.path / "control.json").read_bytes())
            return str(said["order"]), int(said["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return "go", 0

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
            state = self.state
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
            state = Run(path).state
            raise WorkbenchError(
                f"{path} already holds a run ({state}); go on with that one (resume=True), or choose another folder"
            )
        if path.is_dir() and any(p.name != ".lock" for p in path.iterdir()):
            raise WorkbenchError(f"{path} is not empty and holds no run; choose a new folder")

    def write_status(self, **facts: Any) -> None:
        """Replace the status."""
        with plain_errors(self.path):
            write_json(self.path / "status.json", facts)

    def write_config(self, facts: dict[str, Any]) -> None:
        """Replace the configuration."""
        with plain_errors(self.path):
            write_json(self.path / "config.json", facts)

    def write_order(self, word: str) -> None:
        """Ask the job for something, from any process; it looks once a step."""
        with plain_errors(self.path):
            write_json(self.path / "control.json", {"order": word, "at": time.time_ns()})

    def write_details(self, error: BaseException) -> None:
        """Keep the traceback of what a job failed by. A disk that is full keeps none."""
        text = "".join(traceback.format_exception(error))
        with suppress(OSError):
            (self.path / "traceback.txt").write_text(text, encoding="utf-8")

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

    def lock(self) -> Lock:
        """Hold the run for writing; a second writer, in this or another process, is refused."""
        return Lock(self.path)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise WorkbenchError(
                f"the file {self.path / name} is damaged or missing; restore it, or start anew"
            ) from error


class Lock:
    """The right to write a run. It is let go by `release`, or when its process is gone, however that went.

    A flock, which belongs to the open file: a process that inherits the descriptor goes on holding it, without a moment
    in between in which the run would be nobody's.

    Args:
        folder: the run's folder, which is there.
        inherited: the descriptor that the parent process held the lock with.

    Raises:
        WorkbenchError: somebody else holds it.
    """

    def __init__(self, folder: Path, inherited: int | None = None):
        import fcntl

        self.fd = -1
        with plain_errors(folder):
            fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644) if inherited is None else inherited
            try:
                os.set_inheritable(fd, False)
                for attempt in range(25):  # whoever looks for the holder is in the way for some microseconds
                    try:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if attempt == 24:
                            raise
                        time.sleep(0.02)
                os.pwrite(fd, f"{os.getpid():>10}\n".encode(), 0)
            except BlockingIOError:
                os.close(fd)
                raise WorkbenchError(
                    f"{folder} is being written by another job (process {Lock.holder(folder)}); stop that one first"
                ) from None
            except BaseException:
                os.close(fd)
                raise
        self.fd = fd

    @staticmethod
    def holder(folder: Path) -> int | None:
        """The process that holds the lock, or None. Reads only, and never keeps two readers apart."""
        import fcntl

        try:
            fd = os.open(folder / ".lock", os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return int(os.pread(fd, 20, 0) or 0)
        except OSError:  # a file system without locks
            return None
        finally:
            os.close(fd)

    def release(self) -> None:
        """Let others write. Harmless when it is done twice."""
        import fcntl

        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            self.leave()

    def leave(self) -> None:
        """Leave it to the process that has inherited it."""
        fd, self.fd = self.fd, -1
        os.close(fd)

    def __del__(self) -> None:
        if self.fd >= 0:  # closing is enough, and needs no import at the interpreter's end
            self.leave()


def numbered(folder: str | Path, count: int) -> list[Path]:
    """The folders of `count` runs that are given one folder together: 00, 01, … in it."""
    digits = max(len(str(count - 1)), 2)
    return [Path(folder) / f"{n:0{digits}d}" for n in range(count)]


def write_json(path: Path, facts: Any) -> None:
    """Write JSON whole or not at all."""
    replace_text(path, json.dumps(facts, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    partial.write_text(text, encoding="utf-8")
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
