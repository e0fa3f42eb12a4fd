"""What reading a prompt tells of the weights: inputs of writers, errors at the residual stream, and true gradients.

    decorrelated    what a writer read, as keys that do not answer to what all of the prompt's tokens have in common
    read_prompts    one run under the backbone's own weights: what each writer read, and the exact error above the last block
    true_gradient   steps down the prompt's own loss, which cost a backward pass each
    cut             the best change of a given rank (Eckart and Young 1936)

A linear layer y = W x that reads T tokens has the gradient Σ_t δ_t x_tᵀ, δ_t being the gradient at its output, so a change of
W by a gradient has as many terms as the prompt has tokens: it is kept as factors and never written out. The prompt's loss is
that of its own next tokens, summed over them, in nats. Nothing is trained here, and the answer is never read. Factors are
float32 (float64) under a half-precision backbone too: squares of a gradient's numbers leave the range of float16.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import reading
from workbench.backbones.linear_outputs import LowRank, changed, editing
from workbench.backbones.writers import ACTIVATIONS, Writer
from workbench.errors import WorkbenchError
from workbench.methods.rows import Rows

_NUMBERS = 1 << 26  # logits in one run


@dataclass(frozen=True)
class PromptReading:
    """What a backbone made of B prompts at the T tokens that another one of the prompt follows; zero at pads.

    inputs: name of a writer to (B, T, in), what it read.
    factors: name of a writer to (B, T, width), by what its output was multiplied; or to a number.
    hidden: (B, T, width), what the last block gave, before the final norm.
    error: (B, T, width), the gradient of the prompt's loss there, through final norm and head alone.
    real: (B, T) bool, False at pads.
    loss: (B,) nats of the prompt's next tokens, summed.
    """

    inputs: dict[str, Tensor]
    factors: dict[str, Tensor | float]
    hidden: Tensor
    error: Tensor
    real: Tensor
    loss: Tensor


def read_prompts(view: Backbone, writers: Sequence[Writer], rows: Rows) -> PromptReading:
    """Read each row up to where its answer starts.

    Args:
        view: a backbone whose writers and their gates have their hooks (`linear_outputs.install`).
        rows: B rows; what stands after `answer_start` is not looked at.

    Raises:
        WorkbenchError: a prompt of fewer than two tokens, which has no next token of its own.
    """
    _check(view, rows)
    return _joined([_read(view, writers, part, order) for part, order in _parts(view, rows)], len(rows))


def _read(
    view: Backbone, writers: Sequence[Writer], rows: Rows, order: Tensor
) -> tuple[PromptReading, Tensor]:
    ids, real = rows.ids[:, :-1], _real(rows)
    gates = {w.gate for w in writers if w.gate is not None}
    inputs: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}
    above: list[Tensor] = []
    wanted = {w.name for w in writers}

    def note(name: str, x: Tensor, output: Tensor) -> Tensor:
        if name in wanted:
            inputs[name] = x.detach() * real[..., None]
        if name in gates:
            given[name] = output.detach()
        return output

    def cut_off(layer: int, hidden: Tensor) -> Tensor:
        if layer < view.num_layers:
            return hidden
        above.append(hidden.detach().requires_grad_())
        return above[0]

    with (
        torch.enable_grad(),
        reading(cut_off),
        editing(note),
    ):  # no weight has a gradient: the graph begins at the leaf
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        logits = view.runner(view.embed(ids), real, positions, keep=real).logits
        loss = _nats(logits, rows, real)
        error = torch.autograd.grad(loss.sum(), above)[0]
    factors = {
        w.name: w.factor if w.gate is None else ACTIVATIONS[w.activation](given[w.gate]) for w in writers
    }
    hidden = above[0].detach()
    return PromptReading(inputs, factors, hidden, error * real[..., None], real, loss.detach()), order


def decorrelated(inputs: Tensor, real: Tensor, ridge: float) -> Tensor:
    """What a writer read at T tokens as keys, λ (X Xᵀ/s + λ)⁻¹ X / s, s being the mean of |x|² (ours). (B, T, in) to the same
    in float32 (float64).

    A change Σ_t δ_t x_tᵀ answers a later x by Σ_t δ_t (x_tᵀ x), and inputs are alike: nearly all of that is what any x brings up,
    a constant that costs and tells nothing. With keys that are decorrelated over the prompt, as ridge regression has them,
    W moves by about δ_t for x_t itself and little for what is common (`ridge` λ; with λ → ∞ they are x/s).
    """
    with torch.no_grad():
        x = exact(inputs)
        size = (x.square().sum((1, 2)) / real.sum(1).clamp(min=1)).clamp(min=1e-30)[:, None, None]
        alike = x @ x.transpose(1, 2) / size
        spread = ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return ridge * torch.linalg.solve(alike + spread, x) / size


def true_gradient(
    view: Backbone,
    writers: Sequence[Writer],
    rows: Rows,
    step_size: float = 1.0,
    steps: int = 1,
    ridge: float = 0.0,
) -> dict[str, LowRank]:
    """The change of each writer by gradient descent on a row's own prompt: −η Σ_t δ_t x_tᵀ a step, as factors.

    Args:
        step_size: η. steps: each is taken at the weights that the steps before have left; ranks add up.
        ridge: above 0, x_t are `decorrelated`.

    Returns:
        Name of a writer to the change of B rows, of rank `steps` · T at most.
    """
    _check(view, rows)
    made = [(_descend(view, writers, part, step_size, steps, ridge), o) for part, o in _parts(view, rows)]
    changes = {}
    for writer in writers:
        ranks = max(part[writer.name].down.shape[1] for part, _ in made)
        up = made[0][0][writer.name].up
        ups = up.new_zeros(len(rows), up.shape[1], ranks)
        downs = up.new_zeros(len(rows), ranks, writer.inputs)
        for part, order in made:
            own = part[writer.name]
            ups[order, :, : own.up.shape[2]], downs[order, : own.down.shape[1]] = own.up, own.down
        changes[writer.name] = LowRank(ups, downs)
    return changes


def _descend(
    view: Backbone,
    writers: Sequence[Writer],
    rows: Rows,
    step_size: float,
    steps: int,
    ridge: float,
) -> dict[str, LowRank]:
    ids, real = rows.ids[:, :-1], _real(rows)
    names = {w.name for w in writers}
    changes: dict[str, LowRank] = {}
    for _ in range(steps):
        inputs: dict[str, Tensor] = {}
        probes: dict[str, Tensor] = {}

        def probe(
            name: str,
            x: Tensor,
            output: Tensor,
            inputs: dict[str, Tensor] = inputs,
            probes: dict[str, Tensor] = probes,
        ) -> Tensor:
            if name not in names:
                return output
            inputs[name], probes[name] = x.detach() * real[..., None], torch.zeros_like(output)
            return output + probes[name].requires_grad_()

        with torch.enable_grad(), editing(changed(changes), probe):
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
            logits = view.runner(view.embed(ids), real, positions, keep=real).logits
            found = torch.autograd.grad(_nats(logits, rows, real).sum(), [probes[w.name] for w in writers])
        for writer, delta in zip(writers, found, strict=True):
            keys = inputs[writer.name]
            keys = decorrelated(keys, real, ridge) if ridge else exact(keys)
            step = LowRank(-step_size * (exact(delta) * real[..., None]).transpose(1, 2), keys)
            before = changes.get(writer.name)
            changes[writer.name] = step if before is None else added(before, step)
    return changes


def added(one: LowRank, other: LowRank) -> LowRank:
    """The sum of two changes; their ranks add up."""
    return LowRank(torch.cat([one.up, other.up], 2), torch.cat([one.down, other.down], 1))


def cut(change: LowRank, rank: int) -> LowRank:
    """The change of rank `rank` that is nearest to each row's, by its singular value decomposition; 0 leaves it as it is.

    The gradient is that along the changes of this rank (their tangent space at the result): P Pᵀ dM + (1 - P Pᵀ) dM Q Qᵀ with P and
    Q the directions kept. It leaves out how these turn, which is without bound where singular values meet (ours), and is
    the whole gradient where nothing is cut. For its sake a change with a gradient has twice the rank, half of it zero.
    """
    if rank == 0 or rank >= change.up.shape[2]:
        return change
    up, down = change
    with torch.no_grad():
        left, upper = torch.linalg.qr(exact(up))
        right, lower = torch.linalg.qr(exact(down).transpose(1, 2))
        directions = torch.linalg.svd(upper @ lower.transpose(1, 2), full_matrices=False)
        p = (left @ directions.U[:, :, :rank]).to(up)
        q = (right @ directions.Vh[:, :rank].transpose(1, 2)).to(down)
    kept = LowRank(p, p.transpose(1, 2) @ up @ down)
    if not (up.requires_grad or down.requires_grad):
        return kept
    rest = up @ (down @ q)
    return added(kept, LowRank(rest - p @ (p.transpose(1, 2) @ rest), q.transpose(1, 2)))


def singular_values(change: LowRank) -> Tensor:
    """(B, k) of each row's change, the largest first; k is the smaller of the rank and the sides of the matrix."""
    upper = torch.linalg.qr(exact(change.up)).R
    lower = torch.linalg.qr(exact(change.down).transpose(1, 2)).R
    return torch.linalg.svdvals(upper @ lower.transpose(1, 2))


def inner(one: LowRank, other: LowRank) -> Tensor:
    """(B,) the sum over all entries of the product of two changes, from their factors."""
    one, other = (LowRank(exact(change.up), exact(change.down)) for change in (one, other))
    return ((one.up.transpose(1, 2) @ other.up) * (one.down @ other.down.transpose(1, 2))).sum((1, 2))


def cosine(one: LowRank, other: LowRank) -> Tensor:
    """(B,) the cosine between two changes, as vectors of all entries; 0 where one of them is nothing."""
    lengths = (inner(one, one) * inner(other, other)).clamp(min=1e-30).sqrt()
    return inner(one, other) / lengths  # the gradient at nothing is finite, and points to the other


def exact(x: Tensor) -> Tensor:
    """The same in float32, or in float64 if it is: what products and norms of a half-precision backbone's numbers are made in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check(view: Backbone, rows: Rows) -> None:
    short = (rows.answer_start < 2).nonzero()[:, 0].tolist()
    if short:
        read = rows.ids[short[0], : int(rows.answer_start[short[0]])].tolist()
        empty = read in ([], [getattr(view.tokenizer, "bos_token_id", None)])
        raise WorkbenchError(
            f"prompt {short[0]} {'is empty' if empty else 'has 1 token'}, and a gradient needs two tokens, one to predict the "
            f"other; write {'what the text begins with' if empty else 'a longer prompt'}"
        )


def _parts(view: Backbone, rows: Rows) -> Iterator[tuple[Rows, Tensor]]:
    """The prompts alone, in groups that can share a run, each with the rows' numbers."""
    groups: dict[int, list[int]] = defaultdict(list)
    lengths = rows.answer_start.tolist()
    at_once = max(1, _NUMBERS // (max(lengths) * view.vocabulary_size))
    for row, length in enumerate(lengths):
        groups[0 if view.layouts.right_padding else length].append(row)
    for members in groups.values():
        for first in range(0, len(members), at_once):
            order = torch.tensor(members[first : first + at_once], device=rows.ids.device)
            starts = rows.answer_start[order]
            ids = rows.ids[order, : int(starts.max())]
            yield Rows(ids, starts, starts, rows.prompt_at[order]), order


def _real(rows: Rows) -> Tensor:
    """(B, T) bool: tokens that another one of the prompt follows."""
    s = torch.arange(rows.ids.shape[1] - 1, device=rows.ids.device)[None]
    return s < (rows.lengths - 1)[:, None]


def _nats(logits: Tensor, rows: Rows, real: Tensor) -> Tensor:
    """(B,) nats of the prompts' next tokens, from logits (N, V) where `real` is."""
    nats = torch.nn.functional.cross_entropy(exact(logits), rows.ids[:, 1:][real], reduction="none")
    row = real.nonzero()[:, 0]
    return torch.zeros(len(real), device=nats.device, dtype=nats.dtype).index_add(0, row, nats)


def _joined(parts: Sequence[tuple[PromptReading, Tensor]], count: int) -> PromptReading:
    """The readings of all rows, in their order."""
    if len(parts) == 1:
        return parts[0][0]
    longest = max(part.real.shape[1] for part, _ in parts)

    def join(values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: join([value[key] for value in values]) for key in values[0]}
        if not isinstance(values[0], Tensor):
            return values[0]
        shape = (count, *([longest] if values[0].dim() > 1 else []), *values[0].shape[2:])
        whole = values[0].new_zeros(shape)
        for value, (_, order) in zip(values, parts, strict=True):
            if value.dim() == 1:
                whole[order] = value
            else:
                whole[order, : value.shape[1]] = value
        return whole

    return PromptReading(*(join([getattr(part, f.name) for part, _ in parts]) for f in fields(PromptReading)))
