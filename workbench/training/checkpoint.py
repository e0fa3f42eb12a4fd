"""Checkpoints: what a run needs to go on as if it had never stopped. safetensors and JSON only.

A checkpoint is a folder `checkpoints/step-00000050/` with `method.safetensors`, `optimizer.safetensors`,
`best.safetensors` where there is a best state, and `state.json` with scalars and the checksum of each file.
The order of the data and all dice are functions of seed and step, so nothing of them has to be kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.training.run import plain_errors

KEPT = 2
"""Newest checkpoints kept."""


@dataclass
class Checkpoint:
    """The state after `step` updates.

    method, best: name to tensor; `best` is the method at its best validation loss, or None.
    optimizer: torch's `state_dict()`.
    scalars: what else the loop remembers, as JSON.
    """

    step: int
    method: dict[str, Tensor]
    optimizer: dict[str, Any]
    best: dict[str, Tensor] | None = None
    scalars: dict[str, Any] = field(default_factory=dict)

    def save(self, run: Path) -> Path:
        """Write into the run's `checkpoints/`, whole or not at all, and let the oldest go."""
        home = run / "checkpoints"
        target, partial = home / f"step-{self.step:08d}", home / f".partial-{os.getpid()}"
        with plain_errors(run):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            tensors, groups = _flatten(self.optimizer)
            parts = {"method": self.method, "optimizer": tensors, "best": self.best}
            checksums = {}
            for name, part in parts.items():
                if part is not None:
                    path = partial / f"{name}.safetensors"
                    save_file({k: v.detach().cpu().contiguous() for k, v in part.items()}, path)
                    checksums[path.name] = _checksum(path)
            state = {"step": self.step, "scalars": self.scalars, "optimizer": groups, "checksums": checksums}
            (partial / "state.json").write_text(json.dumps(state))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(partial, target)
            for old in list(checkpoints(run).values())[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        return target

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read one back. Raises WorkbenchError when a file is missing or changed."""
        try:
            state = json.loads((folder / "state.json").read_text())
            for name, checksum in state["checksums"].items():
                if _checksum(folder / name) != checksum:
                    raise ValueError(name)
            method = load_file(folder / "method.safetensors")
            optimizer = _unflatten(load_file(folder / "optimizer.safetensors"), state["optimizer"])
            best = folder / "best.safetensors"
            return cls(
                state["step"],
                method,
                optimizer,
                load_file(best) if best.is_file() else None,
                state["scalars"],
            )
        except (OSError, ValueError, KeyError) as error:
            raise WorkbenchError(
                f"the checkpoint {folder} is damaged ({error}); delete that folder to go on from the one before"
            ) from error


def checkpoints(run: Path) -> dict[int, Path]:
    """Step to folder, oldest first."""
    return {int(p.name.removeprefix("step-")): p for p in sorted((run / "checkpoints").glob("step-*"))}


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """torch's optimizer state as tensors by name, and the rest as JSON."""
    tensors = {
        f"{i}.{k}": v for i, s in state["state"].items() for k, v in s.items() if isinstance(v, Tensor)
    }
    scalars = {
        f"{i}.{k}": v for i, s in state["state"].items() for k, v in s.items() if not isinstance(v, Tensor)
    }
    return tensors, {"param_groups": state["param_groups"], "scalars": scalars}


def _unflatten(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **rest["scalars"]}.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [
        {k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in rest["param_groups"]
    ]  # JSON has no tuples
    return {"state": state, "param_groups": groups}


def copy_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """The module's tensors as they are now."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}
