"""What a prior is: a small frozen description (`Prior`), and what it becomes on a backbone (`Distribution`).

Holds the two base classes, the registry `PRIORS` and `from_description`. Draws nothing and reads no data.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.settings import check_settings

PRIORS: dict[str, type[Prior]] = {}
"""Every prior by its name; a subclass of `Prior` puts itself here."""


@dataclasses.dataclass(frozen=True)
class Prior:
    """Base of every prior. A subclass is a frozen dataclass of JSON fields with a `name`, and makes its `fit`.

    Attributes:
        name: what it is called in descriptions, files and on the command line.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" in cls.__dict__:
            PRIORS[cls.name] = cls

    def fit(self, backbone: Backbone, layer: int | None = None) -> Distribution:
        """The prior on one backbone, in one space.

        Args:
            backbone: the model to be prompted.
            layer: None is the space of input embeddings (what `backbone.embed` returns); a number from 0 is the
                space of what that block reads, its input.

        Raises:
            WorkbenchError: no such layer, or data that the prior cannot be fitted to.
        """
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Name and settings, as JSON; `from_description` is the inverse."""
        return {"name": self.name, **self.settings()}

    def settings(self) -> dict[str, Any]:
        """The fields alone, as JSON."""
        fields = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    def check(self, setting: str, right: bool, wanted: str) -> None:
        """Refuse a setting: one sentence with the prior, the setting, what it is and what is wanted."""
        if not right:
            raise WorkbenchError(
                f"the prior {self.name} has {setting}={getattr(self, setting)!r}; give {wanted}"
            )


class Distribution:
    """A prior once fitted: where prompt vectors come from, in one space of one backbone.

    A subclass makes `_draw`, and `_log_prob` where there is a density (then `has_log_prob` is True).

    Attributes:
        width: length of a vector.
        has_log_prob: whether `log_prob` can be asked.
        facts: what was measured while fitting, as JSON.
    """

    has_log_prob: bool = False

    def __init__(self, prior: Prior, width: int, layer: int | None, facts: dict[str, Any] | None = None):
        self.prior, self.width, self.layer, self.facts = prior, width, layer, facts or {}

    def sample(self, shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw vectors: (*shape, width) float32 on the CPU, the same for the same state of the CPU generator.

        One call is one draw: priors that go through a list (text, labels, a run's vectors) start at its beginning.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        return self._draw(math.prod(shape), generator).reshape(*shape, self.width)

    def log_prob(self, e: Tensor) -> Tensor:
        """Log density in nats: (…, width) to (…), differentiable, on e's device and in its type.

        Raises:
            WorkbenchError: the distribution has no density, or e is of another width.
        """
        if not self.has_log_prob:
            raise WorkbenchError(
                f"the prior {self.prior.name} has no density, so nothing can be pulled towards it; "
                "choose one that has, such as fitted-gaussian"
            )
        if e.shape[-1] != self.width:
            raise WorkbenchError(
                f"the prior {self.prior.name} is over vectors of width {self.width}, not {e.shape[-1]}; "
                "fit it on the backbone that the vectors are for"
            )
        return self._log_prob(e)

    def describe(self) -> dict[str, Any]:
        """`name`, `settings`, `layer`, `width`, `has_log_prob`, and what was measured while fitting, as JSON."""
        return {
            "name": self.prior.name,
            "settings": self.prior.settings(),
            "layer": self.layer,
            "width": self.width,
            "has_log_prob": self.has_log_prob,
            **self.facts,
        }

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, width) float32 on the CPU."""
        raise NotImplementedError

    def _log_prob(self, e: Tensor) -> Tensor:
        """(…, width) to (…); only called where `has_log_prob` is True and the width is right."""
        raise NotImplementedError


def from_description(description: dict[str, Any]) -> Prior:
    """The prior that `Prior.describe` described.

    Raises:
        WorkbenchError: no such prior, a setting that it does not have, a value of another type, or one that it refuses.

    >>> from_description({"name": "isotropic", "std": 0.1})
    Isotropic(std=0.1)
    """
    settings = dict(description)
    name = settings.pop("name", "")
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    check_settings(PRIORS[name], settings, f"the prior {name}")
    return PRIORS[name](**settings)


def repeated(vectors: Tensor, n: int) -> Tensor:
    """(m, width) to (n, width): from the first on, over again or cut."""
    return vectors[torch.arange(n) % len(vectors)]
