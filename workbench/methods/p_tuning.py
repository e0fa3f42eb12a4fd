"""P-tuning: a soft prompt that a small network makes of trained embeddings (Liu et al. 2021, arXiv 2103.10385).

The network is the prompt encoder of PEFT, an MLP or a bidirectional LSTM; once trained it is a plain soft prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods import priors
from workbench.methods.injection import Injection
from workbench.methods.method import Method, described

Encoder = Literal["mlp", "lstm"]


@dataclass(frozen=True)
class PTuningConfig:
    """What a P-tuning prompt is before it is trained."""

    tokens: int = 20
    """Number of vectors."""
    encoder: Encoder = "mlp"
    """The network: three linear layers with ReLU, or a two-layer bidirectional LSTM and two linear layers."""
    hidden: int = 128
    """Width inside the network."""
    prior: dict[str, Any] = field(default_factory=lambda: {"name": "vocabulary"})
    """Where the network's input starts, as a prior describes itself."""
    seed: int = 0
    """Seed of the draw from the prior, and of the network."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.hidden < 1:
            raise WorkbenchError("tokens and hidden of P-tuning must be at least 1")
        if self.encoder not in get_args(Encoder):
            raise unknown("encoder", self.encoder, get_args(Encoder))
        priors.from_description(self.prior)


class PTuning(Method):
    """P vectors in the input, made by a network that is trained with them.

    >>> method = wb.PTuning(backbone, tokens=20, encoder="lstm")

    Args:
        backbone: the model to be prompted.
        config: a whole configuration, or the fields of one as keywords, see `PTuningConfig`.

    Attributes:
        embeddings: (P, width) float32, trained; the network's input.
        lstm, mlp: the network (`lstm` is None for the MLP).
    """

    kind = "p-tuning"
    Config = PTuningConfig

    def __init__(self, backbone: Backbone, config: PTuningConfig | None = None, **fields: Any):
        config = config or PTuningConfig(**described(fields))
        super().__init__(backbone, config)
        start = self.draw(backbone, config.tokens)
        self.embeddings = nn.Parameter(start)
        width, hidden = backbone.width, config.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.lstm = None
            if config.encoder == "lstm":
                self.lstm = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
                self.mlp = nn.Sequential(
                    nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width)
                )
            else:
                self.mlp = nn.Sequential(
                    nn.Linear(width, hidden),
                    nn.ReLU(),
                    nn.Linear(hidden, hidden),
                    nn.ReLU(),
                    nn.Linear(hidden, width),
                )
        self.to(start.device)

    def vectors(self) -> Tensor:
        """(P, width) the soft prompt that the network makes now."""
        given = self.embeddings if self.lstm is None else self.lstm(self.embeddings[None])[0][0]
        return self.mlp(given)

    def injection(self) -> Injection:
        """The network's vectors, for every row alike."""
        return Injection(input_embeddings=self.vectors()[None])

    def snapshot(self) -> dict[str, Tensor]:
        """`embeddings` (P, width): the soft prompt, not the network's input."""
        with torch.no_grad():
            return {"embeddings": self.vectors().cpu().clone()}

    @property
    def prompt_length(self) -> int:
        """P."""
        return self.config.tokens
