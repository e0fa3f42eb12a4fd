"""What makes a weight change out of a prompt: the trained parts of ProSG, one class for each source that trains anything.

    TokenSynthesiser    a correction of the error at each of the prompt's tokens, and of what each writer read there
    StateSynthesiser    the state after the prompt, through a bottleneck to two factors

Neither reads a prompt itself. A gradient of a linear layer over T tokens is a sum of T outer products δ_t x_tᵀ: `up` plays −δ,
`down` plays x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from workbench.backbones.linear_outputs import LowRank
from workbench.backbones.writers import Writer
from workbench.methods.prompt_gradient import PromptReading, decorrelated

WIDE = 256
"""Writers that read more numbers than this get a scale for each of them in place of a matrix."""


def error_change(reading: PromptReading, writer: Writer, step_size: float, ridge: float = 0.0) -> LowRank:
    """−η Σ_t (g_t ⊙ e_t) x_tᵀ: the error above the last block handed unchanged to a writer (ours), g_t being its factor.

    With a ridge x_t are `decorrelated`.
    """
    delta = reading.error * reading.factors[writer.name]
    keys = reading.inputs[writer.name]
    keys = decorrelated(keys, reading.real, ridge) if ridge else keys
    return LowRank(-step_size * delta.transpose(1, 2), keys)


class TokenSynthesiser(nn.Module):
    """−η Σ_t (g_t ⊙ δ̂_t) k̂_tᵀ with δ̂_t = (1 + a_t) e_t + MLP(h_t, e_t) and k̂_t = k_t + M k_t (ours).

    The synthetic gradient of decoupled neural interfaces (Jaderberg et al. 2017, arXiv 1608.05343), token by token. k_t are the
    writer's inputs, decorrelated if there is a ridge; a_t says how much a token matters. At the start a, MLP and M give nothing,
    and the change is that of the error alone. Seen as a layer, ΔW x = Σ_t δ̂_t (k̂_tᵀ x) is linear attention over the prompt.

    Args:
        writer: whose matrix is changed.
        width: of the residual stream.
        hidden: of the MLP, whose hidden layer also gives a_t.
        step_size: η at the start; it is trained, as a logarithm.
        unit: about the size (root mean square) of an error's numbers: what the MLP reads and gives is in this unit.
        ridge: of the keys.
    """

    def __init__(
        self,
        writer: Writer,
        width: int,
        hidden: int,
        step_size: float,
        unit: float,
        ridge: float,
        dice: torch.Generator,
    ):
        super().__init__()
        self.writer, self.unit, self.ridge = writer, unit, ridge
        bound = 1 / math.sqrt(2 * width)
        self.into = nn.Parameter(torch.empty(hidden, 2 * width).uniform_(-bound, bound, generator=dice))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Parameter(torch.zeros(width, hidden))
        self.matter = nn.Parameter(torch.zeros(hidden))
        shape = (writer.inputs, writer.inputs) if writer.inputs <= WIDE else (writer.inputs,)
        self.keys = nn.Parameter(torch.zeros(shape))
        self.log_step = nn.Parameter(torch.tensor(math.log(step_size)))

    def forward(self, reading: PromptReading) -> LowRank:
        """The change of B rows, of rank T."""
        kind = self.into.dtype
        x, e = reading.inputs[self.writer.name].to(kind), reading.error.to(kind)
        if self.ridge:
            x = decorrelated(x, reading.real, self.ridge)
        h = nn.functional.layer_norm(reading.hidden.to(kind), reading.hidden.shape[-1:])
        read = nn.functional.gelu(torch.cat([h, e / self.unit], -1) @ self.into.T + self.bias)
        factor = reading.factors[self.writer.name]
        delta = (1 + read @ self.matter)[..., None] * e + self.unit * (read @ self.out.T)
        delta = delta * (factor.to(kind) if isinstance(factor, Tensor) else factor)
        keys = x + (x @ self.keys.T if self.keys.dim() == 2 else x * self.keys)
        return LowRank(-self.log_step.exp() * (delta * reading.real[..., None]).transpose(1, 2), keys)


class StateSynthesiser(nn.Module):
    """(α/r) A B with A and B linear in z = tanh(norm(s) W_z), s being a layer's state after the prompt (arXiv 2311.01981 as we read
    it; the form is ours). A is zero at the start, so that training starts from the plain model.

    Args:
        writers: those of one layer, which share z.
        state: numbers in the layer's state. hidden: of z. rank: r. scale: α.
    """

    def __init__(
        self,
        writers: Sequence[Writer],
        width: int,
        state: int,
        hidden: int,
        rank: int,
        scale: float,
        dice: torch.Generator,
    ):
        super().__init__()
        self.writers, self.rank, self.scale, self.width = tuple(writers), rank, scale, width
        bound = 1 / math.sqrt(state)
        self.into = nn.Parameter(torch.empty(hidden, state).uniform_(-bound, bound, generator=dice))
        self.ups = nn.ParameterList([nn.Parameter(torch.zeros(width * rank, hidden)) for _ in writers])
        self.downs = nn.ParameterList(
            [
                nn.Parameter(
                    torch.empty(rank * w.inputs, hidden).normal_(generator=dice)
                    / math.sqrt(hidden * w.inputs)
                )
                for w in writers
            ]
        )

    def forward(self, state: Tensor) -> Mapping[str, LowRank]:
        """States (B, n) to the changes of the layer's writers."""
        z = torch.tanh(nn.functional.layer_norm(state.to(self.into.dtype), state.shape[-1:]) @ self.into.T)
        made = {}
        for writer, up, down in zip(self.writers, self.ups, self.downs, strict=True):
            a = (z @ up.T).reshape(len(z), self.width, self.rank)
            b = (z @ down.T).reshape(len(z), self.rank, writer.inputs)
            made[writer.name] = LowRank(self.scale / self.rank * a, b)
        return made
