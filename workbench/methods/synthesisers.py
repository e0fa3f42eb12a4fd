"""What makes a weight change out of a prompt: the trained parts of ProSG, one class for each source that trains anything.

    TokenSynthesiser    a correction of the error at each of the prompt's tokens, and of what each writer read there
    copying_loss        what the keys of the first can learn before anything else
    StateSynthesiser    the state after the prompt, through a bottleneck to two factors

Neither reads a prompt itself. A gradient of a linear layer over T tokens is a sum of T outer products δ_t x_tᵀ: `up` plays −δ,
`down` plays x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from workbench.backbones.linear_outputs import LowRank
from workbench.backbones.writers import Writer
from workbench.methods.prompt_gradient import PromptReading, decorrelated, exact
from workbench.methods.rows import Rows

SHARPNESS = 8.0
"""By what answers of keys are multiplied to be logits: one that is right, 1 where the others are 0, is then nearly sure."""


def error_change(reading: PromptReading, writer: Writer, step_size: float, ridge: float = 0.0) -> LowRank:
    """−η Σ_t (g_t ⊙ e_t) x_tᵀ: the error above the last block handed unchanged to a writer (ours), g_t being its factor.

    With a ridge x_t are `decorrelated`.
    """
    delta = exact(reading.error) * reading.factors[writer.name]
    keys = reading.inputs[writer.name]
    keys = decorrelated(keys, reading.real, ridge) if ridge else exact(keys)
    return LowRank(-step_size * delta.transpose(1, 2), keys)


class TokenSynthesiser(nn.Module):
    """−η Σ_t (g_t ⊙ δ̂_t) k̂_tᵀ with δ̂_t = (1 + a_t) e_t + D z_t and k̂_t = (1 + c) ⊙ k_t + K z_t, z_t = gelu(Z [x_t, h_t, e_t]) (ours).

    The synthetic gradient of decoupled neural interfaces (Jaderberg et al. 2017, arXiv 1608.05343), token by token. k_t are the
    writer's inputs, decorrelated if there is a ridge; a_t, linear in z_t, says how much a token matters. At the start a, c, D and
    K are zero, and the change is that of the error alone. Seen as a layer, ΔW x = Σ_t δ̂_t (k̂_tᵀ x) is linear attention over the
    prompt; keys that are made of what the token means find later inputs which look unlike the token's own.

    Args:
        writer: whose matrix is changed.
        width: of the residual stream.
        hidden: numbers in z_t.
        step_size: η at the start; it is trained, as a logarithm.
        units: about the size (root mean square) of an error's numbers, and of a key's: z_t reads errors, D and K give, in these.
        ridge: of the keys.
    """

    def __init__(
        self,
        writer: Writer,
        width: int,
        hidden: int,
        step_size: float,
        units: tuple[float, float],
        ridge: float,
        dice: torch.Generator,
    ):
        super().__init__()
        self.writer, self.units, self.ridge = writer, units, ridge
        reads = writer.inputs + 2 * width
        bound = 1 / math.sqrt(reads)
        self.into = nn.Parameter(torch.empty(hidden, reads).uniform_(-bound, bound, generator=dice))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Parameter(torch.zeros(width, hidden))
        self.matter = nn.Parameter(torch.zeros(hidden))
        self.scale = nn.Parameter(torch.zeros(writer.inputs))
        self.keys = nn.Parameter(torch.zeros(writer.inputs, hidden))
        self.log_step = nn.Parameter(torch.tensor(math.log(step_size)))

    def forward(self, reading: PromptReading) -> LowRank:
        """The change of B rows, of rank T."""
        z, keys = self.read(reading)
        e = reading.error.to(z)
        factor = reading.factors[self.writer.name]
        delta = (1 + z @ self.matter)[..., None] * e + self.units[0] * (z @ self.out.T)
        delta = delta * (factor.to(z) if isinstance(factor, Tensor) else factor)
        return LowRank(-self.log_step.exp() * (delta * reading.real[..., None]).transpose(1, 2), keys)

    def read(self, reading: PromptReading) -> tuple[Tensor, Tensor]:
        """z (B, T, hidden), and the keys (B, T, in), which at pads are anything."""
        x = reading.inputs[self.writer.name].to(self.into.dtype)
        seen = [nn.functional.layer_norm(y, y.shape[-1:]) for y in (x, reading.hidden.to(x))]
        z = torch.cat([*seen, reading.error.to(x) / self.units[0]], -1) @ self.into.T + self.bias
        z = nn.functional.gelu(z)
        if self.ridge:
            x = decorrelated(x, reading.real, self.ridge)
        return z, x * (1 + self.scale) + self.units[1] * (z @ self.keys.T)


def copying_loss(synthesisers: Sequence[TokenSynthesiser], reading: PromptReading, rows: Rows) -> Tensor:
    """How far keys are from answering where a text says one of its prompt's tokens again, and there only (ours). ().

    Where the token that stands once in the prompt, behind position t, comes next at s, k̂_tᵀ x_s shall be 1, and k̂_uᵀ x_s be 0 for
    every other u and at every other s: squares are summed over the prompt, and the mean over such s and that over all others are
    added. That alone learns which tokens could come long before it learns which does, so the cross-entropy of t among the prompt's
    positions, with `SHARPNESS` times k̂ᵀ x_s for logits, is added as well. The mean over writers is taken. No run of the backbone
    backwards is needed, which the loss of answers does need.

    Args:
        reading: of whole rows, under the backbone's own weights.
        rows: the same rows, with the prompts' ends.
    """
    size = int(rows.answer_start.max()) - 1  # a prompt's last token has no key
    s = torch.arange(reading.real.shape[1], device=rows.ids.device)[None]
    asked = s < (rows.answer_start - 1)[:, None]
    told = reading.real & ~asked
    asked = asked[:, :size]
    coming = rows.ids[:, 1:]
    same = (coming[:, :, None] == coming[:, None, :size]) & asked[:, None]
    again = told & (same.sum(2) == 1)
    wanted = (same & again[..., None]).to(reading.hidden)
    prompt = replace(
        reading,
        inputs={name: x[:, :size] * asked[..., None] for name, x in reading.inputs.items()},
        hidden=reading.hidden[:, :size],
        error=reading.error[:, :size],
        real=asked,
    )
    losses = []
    for part in synthesisers:
        keys = part.read(prompt)[1] * asked[..., None]
        answers = reading.inputs[part.writer.name].to(keys) @ keys.transpose(1, 2)
        apart = (answers - wanted.to(keys)).square().sum(2)
        losses += [apart[where].mean() for where in (again, told & ~again) if where.any()]
        if again.any():
            logits = (SHARPNESS * answers).masked_fill(~asked[:, None], -torch.inf)[again]
            losses.append(nn.functional.cross_entropy(logits, wanted[again].argmax(1)))
    return torch.stack(losses).sum() / len(synthesisers)


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
