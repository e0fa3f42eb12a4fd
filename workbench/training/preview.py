"""A run that has not begun: its configuration, and what its method would start from. Writes nothing and trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.training.job import JobConfig

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone


class Preview:
    """What views read of a run, before there is one: they show it like a run with a single snapshot, of step 0.

    Its vectors are those that the run will start from, to the bit, because a method's seed decides its draw.

    Args:
        config: the job that the run would be.
        backbone: the model that `config` names.
        path: where the run would be; it is not made.
    """

    def __init__(self, config: JobConfig, backbone: Backbone, path: str | Path):
        checked = config.checked(loaded=True)
        self.path, self.config = Path(path), checked.to_json()
        self._snapshot = {name: tensor.numpy() for name, tensor in checked.make(backbone).snapshot().items()}

    @property
    def name(self) -> str:
        """The folder that the run would have."""
        return self.path.name

    def snapshots(self) -> dict[int, Path]:
        """The one that there is, by its step."""
        return {0: self.path}

    def snapshot(self, step: int) -> dict[str, Any]:
        """Name to array, as `Run.snapshot` gives it."""
        if step:
            raise WorkbenchError(
                f"{self.path} has not begun, so it has no snapshot of step {step}; train it first"
            )
        return dict(self._snapshot)

    def metrics(self) -> list[dict[str, Any]]:
        """None yet."""
        return []
