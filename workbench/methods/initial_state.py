"""State tuning: the state in which a recurrent backbone begins is what is trained (as RWKV's community does it; ours in detail).

Holds the method only. RWKV alone: transformers' other recurrences restart or write into their states.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from workbench.backbones import rwkv
from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.injection import Injection
from workbench.methods.method import Method, described, remembered


@dataclass(frozen=True)
class InitialStateConfig:
    """What an initial state is before it is trained."""

    tokens: int = 20
    """Number of vectors that the prior draws; the start is the state after reading them (ours: a state far from all that
    the model ever has is hard to train)."""
    prior: dict[str, Any] = field(default_factory=lambda: {"name": "vocabulary"})
    """Where those vectors come from, as a prior describes itself."""
    seed: int = 0
    """Seed of the draw from the prior."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise WorkbenchError(f"the start state reads {self.tokens} vectors; give tokens=1 or more")
        priors.from_description(self.prior)


class InitialState(Method):
    """The state of a recurrent backbone before its first token.

    >>> method = wb.InitialState(wb.load_backbone("tiny-rwkv"))

    A channel of RWKV's sums is a mean and its weight, numerator = mean · e^weight and denominator = e^weight: so any
    value of what is trained is a state that some text could leave, and none divides by zero.

    Args:
        backbone: an RWKV backbone.
        config: a whole configuration, or the fields of one as keywords, see `InitialStateConfig`.

    Attributes:
        feed_forward_shift, attention_shift: (L, width) float32, trained.
        mean, weight: (L, channels) float32, trained; `weight` is a logarithm.

    Raises:
        WorkbenchError: a backbone that is not recurrent, or whose state is not RWKV's.
    """

    kind = "initial-state"
    Config = InitialStateConfig

    def __init__(self, backbone: Backbone, config: InitialStateConfig | None = None, **fields: Any):
        config = config or InitialStateConfig(**described(fields))
        super().__init__(backbone, config)
        if backbone.kind != "recurrent":
            raise WorkbenchError(
                f"{backbone.name} is not recurrent, so it has no initial state; use a prefix or a soft prompt"
            )
        start = self.draw(backbone, config.tokens)
        state = remembered(backbone, start)
        if not isinstance(state, rwkv.State):
            raise WorkbenchError(
                f"the state of {backbone.name} ({type(backbone.model).__name__}) cannot be trained: only RWKV's is read "
                "through a recurrence of our own; use a soft prompt"
            )
        one = rwkv.State(*(t[:, 0].float() for t in state))
        self.feed_forward_shift = nn.Parameter(one.feed_forward_shift.clone())
        self.attention_shift = nn.Parameter(one.attention_shift.clone())
        self.mean = nn.Parameter(one.mean)
        self.weight = nn.Parameter(one.weight)

    def injection(self) -> Injection:
        """The state, for every row alike."""
        parts = (self.mean, self.weight, self.attention_shift, self.feed_forward_shift)
        return Injection(state=rwkv.State.of(*(part[:, None] for part in parts)))

    def snapshot(self) -> dict[str, Tensor]:
        """`mean` and both shifts, each (L, width): one row a layer."""
        names = ("mean", "attention_shift", "feed_forward_shift")
        return {name: getattr(self, name).detach().cpu().clone() for name in names}

    @property
    def prompt_length(self) -> int:
        """0: a state takes no position."""
        return 0
