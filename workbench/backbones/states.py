"""What a recurrent or hybrid backbone remembers of each row, layer by layer, as vectors.

    state_sizes(backbone)                           the layers that have a state, and how long its vector is
    read_state(backbone, cache, layer)              (B, n), out of the cache of any run
    write_states(backbone, cache, {layer: vectors}) the cache with these in place of its own
    end_states(backbone, ids, lengths)              after the last token of rows of any length

A reader knows one kind of cache by what it holds, never by a model's name, and is believed where it is proven on the
backbone at hand (`prove`, ours): the vectors of two texts, put into a cache that remembers two others, have to go on as
the texts themselves do. So a vector holds all that a layer remembers but keys and values. Nothing here says what a state
means, and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from workbench.backbones import rwkv
from workbench.backbones.runner import Runner
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

PROVEN = "RWKV, Mamba, Mamba-2, RecurrentGemma, Falcon-H1 and Qwen3-Next"
"""Architectures on which a test proves a reader; others are tried when they are loaded."""
_READ, _WRITTEN = 6, 2  # tokens of the proof: read at once, and then one by one


class StateReader(Protocol):
    """Reads and writes the states in one kind of cache."""

    def holds(self, cache: Any) -> bool:
        """Whether this is such a cache."""
        ...

    def layers(self, cache: Any) -> Sequence[int]:
        """The layers that have a state in it."""
        ...

    def read(self, cache: Any, layer: int) -> Tensor:
        """(B, n), a copy: what a layer remembers of each row. Gradients flow back to the cache."""
        ...

    def write(self, cache: Any, layer: int, vectors: Tensor) -> None:
        """Put (B, n) into the tensors of a cache of B rows that is one's own."""
        ...


class RwkvReader:
    """RWKV-4's state, as `InitialState` trains it (ours): the same memory has many numerators, denominators and scales, but
    one mean and one weight. After them come the shifts of attention and feed-forward; n = 2 A + 2 d.

    A state in which nothing was read has no mean, and reads as NaN.
    """

    def holds(self, cache: Any) -> bool:
        return isinstance(cache, rwkv.State)

    def layers(self, cache: rwkv.State) -> Sequence[int]:
        return range(len(cache.numerator))

    def read(self, cache: rwkv.State, layer: int) -> Tensor:
        one = cache.layer(layer)
        shifts = (one.attention_shift.to(one.mean), one.feed_forward_shift.to(one.mean))
        return torch.cat([one.mean, one.weight, *shifts], dim=-1)

    def write(self, cache: rwkv.State, layer: int, vectors: Tensor) -> None:
        inner, width = cache.numerator.shape[-1], cache.attention_shift.shape[-1]
        one = rwkv.State.of(*vectors.split([inner, inner, width, width], dim=-1))
        for whole, part in zip(cache, one, strict=True):
            whole[layer] = part


class RecurrentLayersReader:
    """The layers of transformers' caches that have `recurrent_states` and `conv_states`: first the windows of the
    convolutions, then the recurrent states, flat.

    A window as long as its kernel keeps one column that no later token reads; it is left out, and written as zeros.
    """

    def holds(self, cache: Any) -> bool:
        return any(hasattr(entry, "recurrent_states") for entry in getattr(cache, "layers", None) or ())

    def layers(self, cache: Any) -> Sequence[int]:
        return [i for i, entry in enumerate(cache.layers) if next(self._parts(entry), None) is not None]

    def read(self, cache: Any, layer: int) -> Tensor:
        return torch.cat([part.flatten(1) for part in self._parts(cache.layers[layer])], dim=-1)

    def write(self, cache: Any, layer: int, vectors: Tensor) -> None:
        entry = cache.layers[layer]
        for number, window in entry.conv_states.items():
            entry.conv_states[number] = None if window is None else torch.zeros_like(window)
        parts = list(self._parts(entry))
        for part, new in zip(parts, vectors.split([part[0].numel() for part in parts], dim=-1), strict=True):
            part.copy_(new.reshape(part.shape))

    @staticmethod
    def _parts(entry: Any) -> Iterator[Tensor]:
        """Views of the tensors of a layer that later tokens read, each (B, …)."""
        for number, window in getattr(entry, "conv_states", {}).items():
            if window is not None:
                yield window[..., int(window.shape[-1] == entry.conv_kernel_size[number]) :]
        for state in getattr(entry, "recurrent_states", {}).values():
            if state is not None:
                yield state


READERS: list[StateReader] = [RwkvReader(), RecurrentLayersReader()]


def state_sizes(backbone: Backbone) -> dict[int, int]:
    """Layer to the length of its state's vector, for the layers that have a state; in a hybrid not all do.

    Raises:
        WorkbenchError: a backbone without a state, or none of whose readers is proven on it.
    """
    if backbone.kind == "attention":
        raise WorkbenchError(
            f"{backbone.name} is an attention model and has no recurrent state; {PROVEN} have one"
        )
    if not backbone.proven_states:
        raise WorkbenchError(
            f"the recurrent states of {backbone.name} ({type(backbone.model).__name__}) have no reader that is proven; "
            f"those of {PROVEN} have one"
        )
    return backbone.proven_states


def read_state(backbone: Backbone, cache: Any, layer: int) -> Tensor:
    """(B, n) what a layer remembers of each row, in a copy; differentiable where the cache is.

    Args:
        backbone: what was run.
        cache: what a run with `use_cache=True` gave, after at least one token.
        layer: from 0.

    Raises:
        WorkbenchError: a layer without a state, or a backbone as in `state_sizes`.
    """
    check_layers(backbone, [layer])
    return _reader(cache).read(cache, layer)


def write_states(backbone: Backbone, cache: Any, vectors: Mapping[int, Tensor]) -> Any:
    """A new cache: the given one with other states in some layers. It stays as it is, and keys and values are its.

    Args:
        backbone: what the cache is of.
        cache: of B rows.
        vectors: layer to (B, n), as `read_state` gives them; gradients flow back to them.

    Raises:
        WorkbenchError: as `read_state`.
    """
    check_layers(backbone, vectors)
    return _written(backbone.runner, _reader(cache), cache, vectors)


@torch.no_grad()
def end_states(
    backbone: Backbone, ids: Tensor, lengths: Tensor, layers: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """What the layers remember of each row after its last token, as if it had been read alone. No gradient.

    Args:
        backbone: the frozen model.
        ids: (B, T) token ids, padded on the right.
        lengths: (B,) tokens to read of each row, 1 or more.
        layers: which; all that have a state by default.

    Returns:
        Layer to (B, n).

    Raises:
        WorkbenchError: a row without tokens, or as `read_state`.
    """
    layers = list(state_sizes(backbone)) if layers is None else layers
    check_layers(backbone, layers)
    ids, lengths = ids.to(backbone.device), lengths.to(backbone.device)
    if bool((lengths < 1).any()):
        raise WorkbenchError(
            f"row {int(lengths.argmin())} has no tokens, and so no state; give each row a token or more"
        )
    order = torch.arange(len(ids), device=ids.device)
    groups = [order]
    if not backbone.layouts.left_padding:  # then pads would be remembered
        groups = [order[lengths == length] for length in lengths.unique()]
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for rows in groups:
        cache = _read_rows(backbone, ids[rows], lengths[rows])
        for layer in layers:
            found[layer].append(_reader(cache).read(cache, layer))
    back = torch.cat(groups).argsort()
    return {layer: torch.cat(parts)[back] for layer, parts in found.items()}


def _read_rows(backbone: Backbone, ids: Tensor, lengths: Tensor) -> Any:
    """The cache after rows that are moved to the right, so that each one's last token is the last read."""
    size = int(lengths.max())
    place = torch.arange(size, device=ids.device)[None] - (size - lengths)[:, None]
    mask, positions = place >= 0, place.clamp(min=0)
    last = torch.zeros_like(mask)
    last[:, -1] = True
    return backbone.runner(
        backbone.embed(ids.gather(1, positions)), mask, positions, use_cache=True, keep=last
    ).cache


def check_layers(backbone: Backbone, layers: Sequence[int] | Mapping[int, Any]) -> None:
    """Refuse layers that have no state, with those that have."""
    sizes = state_sizes(backbone)
    for layer in layers:
        if layer not in sizes:
            raise WorkbenchError(
                f"layer {layer} of {backbone.name} has no recurrent state; these have one: {', '.join(map(str, sizes))}"
            )


@torch.no_grad()
def prove(runner: Runner, vocabulary: Tensor) -> dict[int, int]:
    """The layers whose states can be read and written on a model, with the lengths of their vectors; none unproven.

    Two random texts are read at once and continued token by token, behind caches with their own keys and values: their own
    cache; that of two other texts; and the latter with the states of the first written into it. The last has to go on as the
    first does, up to a ten-thousandth of what the second gets wrong (a tenth in half precision): a state that is read whole
    and put back gives the same numbers.

    Args:
        runner: the model, which goes on rightly from a cache of rows of equal length.
        vocabulary: (V, width) what the embedding module returns for each token.
    """
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(len(vocabulary), (2, _READ + _WRITTEN), generator=dice)
    rows = vocabulary[ids.to(vocabulary.device)]
    cache = _run(runner, rows[:, :_READ])[1]
    reader = next((reader for reader in READERS if reader.holds(cache)), None)
    if reader is None:
        return {}
    vectors = {layer: reader.read(cache, layer) for layer in reader.layers(cache)}
    if not vectors:
        return {}
    other = _run(runner, rows[:, :_READ].flip(1))[1]
    for entry, own in zip(getattr(other, "layers", ()), getattr(cache, "layers", ()), strict=True):
        if isinstance(getattr(own, "keys", None), Tensor):
            entry.keys, entry.values = own.keys, own.values
    written = _written(runner, reader, other, vectors)
    expected, wrong, found = (_continued(runner, rows, behind) for behind in (cache, other, written))
    mistake, error = (float((logits - expected).abs().max()) for logits in (wrong, found))
    part = 1e-4 if rows.dtype in (torch.float32, torch.float64) else 0.1
    if not error <= part * mistake:
        return {}
    return {layer: vector.shape[1] for layer, vector in vectors.items()}


def _run(runner: Runner, rows: Tensor, cache: Any = None, first: int = 0) -> tuple[Tensor, Any]:
    """(B, T, V) logits and the cache after rows (B, T, width) whose first token is number `first`."""
    mask = torch.ones(len(rows), first + rows.shape[1], dtype=torch.bool, device=rows.device)
    positions = mask.long().cumsum(1)[:, first:] - 1
    output = runner(rows, mask, positions, cache, use_cache=True)
    return output.logits.float(), output.cache


def _continued(runner: Runner, rows: Tensor, cache: Any) -> Tensor:
    """(B, written, V) logits of the last tokens of the proof, one by one behind a cache, which is used up."""
    found = []
    for at in range(_READ, rows.shape[1]):
        logits, cache = _run(runner, rows[:, at : at + 1], cache, at)
        found.append(logits)
    return torch.cat(found, dim=1)


def _written(runner: Runner, reader: StateReader, cache: Any, vectors: Mapping[int, Tensor]) -> Any:
    rows = len(next(iter(vectors.values())))
    made = runner.expand(cache, torch.arange(rows, device=next(iter(vectors.values())).device))
    for layer, vector in vectors.items():
        reader.write(made, layer, vector)
    return made


def _reader(cache: Any) -> StateReader:
    for reader in READERS:
        if reader.holds(cache):
            return reader
    raise WorkbenchError(
        f"a {type(cache).__name__} holds no recurrent state; give the cache of a run with use_cache=True"
    )
