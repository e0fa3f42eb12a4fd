"""Run directories for the tests of views, written by the class that training writes them with. Trains nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.training.config import FitConfig
from workbench.training.run import Run

CONFIG: dict[str, Any] = {
    "backbone": {
        "name": "tiny-llama",
        "architecture": "LlamaForCausalLM",
        "kind": "attention",
        "parameters": 1_000_000,
        "layers": 4,
        "width": 192,
        "vocabulary": 3072,
        "context": 2048,
        "state": False,
        "dtype": "float32",
        "device": "cpu",
    },
    "method": {
        "kind": "soft-prompt",
        "config": {"tokens": 10, "prior": {"name": "vocabulary"}, "seed": 0},
        "parameters": 1920,
    },
    "priors": [{"name": "vocabulary", "spread": 0.5}],
    "task": {"task": "find-person", "seed": 0},
    "fit": FitConfig(steps=40, evaluate_every=10).to_json(),
    "versions": {"workbench": "0.1.0", "python": "3.12.1"},
    "created": "2026-01-02 03:04:05 UTC",
}


def changed(config: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A copy with other settings, named by their place with two underscores: `fit__seed=3`."""
    config = copy.deepcopy(config)
    for name, value in settings.items():
        *path, last = name.split("__")
        part = config
        for key in path:
            part = part.setdefault(key, {})
        part[last] = value
    return config


def write_run(
    path: Path,
    steps: int = 40,
    state: str = "finished",
    rate: float = 1.0,
    snapshots: bool = False,
    width: int = 12,
    **settings: Any,
) -> Run:
    """A run of `steps` steps with a look at validation each tenth; `rate` is how fast its loss falls.

    width: of the vectors in its snapshots; 192 is that of the backbone that it names.
    """
    run = Run.create(path, changed(CONFIG, **settings))
    lines = []
    for step in range(1, steps + 1):
        loss = 3.0 / (1 + rate * step / 10)
        line: dict[str, Any] = {"step": step, "loss": loss, "tokens": 20, "seconds": 0.5}
        if step % 10 == 0:
            line["validation"] = {"loss": loss + 0.1, "accuracy": min(1.0, rate * step / 100)}
        lines.append(line)
    for line in lines:
        run.append_metrics(line)
    if snapshots:
        start = np.random.default_rng(0).normal(size=(4, width)).astype(np.float32)
        for step in range(0, steps + 1, 10):
            run.write_snapshot(step, {"embeddings": torch.tensor(start + rate * step / 40)})
    run.write_status(state=state, step=steps, steps=run.config["fit"]["steps"])
    return run


def many_runs(folder: Path, number: int, steps: int = 200) -> None:
    """So many finished runs, as files only."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, steps + 1):
        line: dict[str, Any] = {
            "step": step,
            "loss": 3 / step,
            "tokens": 20,
            "learning_rate": 0.01,
            "gradient_norm": 1.0,
        }
        line["seconds"] = 0.25
        if step % 20 == 0:
            line["validation"] = {"loss": 1.0, "accuracy": step / steps}
        lines.append(json.dumps(line))
    metrics = "\n".join(lines) + "\n"
    status = json.dumps({"state": "finished", "step": steps, "steps": steps})
    for i in range(number):
        path = folder / f"run-{i:04d}"
        (path / "snapshots").mkdir(parents=True)
        (path / "checkpoints").mkdir()
        (path / "method").mkdir()
        config = changed(CONFIG, fit__seed=i % 5, fit__learning_rate=0.01 * (1 + i // 5))
        (path / "config.json").write_text(json.dumps(config))
        (path / "status.json").write_text(status)
        (path / "metrics.jsonl").write_text(metrics)
