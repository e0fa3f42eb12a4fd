"""Every method as the contract tests make it, and the plain way in which its injection is one run of a row alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import reading, seeing
from workbench.methods import priors
from workbench.methods.deep_prompt import DeepPrompt
from workbench.methods.initial_state import InitialState
from workbench.methods.injection import Injection
from workbench.methods.lora import LoRA
from workbench.methods.method import Method
from workbench.methods.p_tuning import PTuning
from workbench.methods.pointer_cache import PointerCache
from workbench.methods.prefix_prompt import PrefixPrompt
from workbench.methods.prompt_bias import PromptBias
from workbench.methods.rows import Rows
from workbench.methods.soft_prompt import SoftPrompt
from workbench.methods.synthetic_gradient import SyntheticGradient
from workbench.tasks.encode import Encoded


def changed(method: LoRA, seed: int) -> LoRA:
    """The same, off its start: an untrained LoRA is the plain model, and nobody would see it dropped."""
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for up in method.up.values():
            up.copy_(torch.randn(up.shape, generator=dice) * 0.1)
    return method


def off_its_start(method: SyntheticGradient, seed: int) -> SyntheticGradient:
    """The same with a synthesiser that gives something: an untrained one corrects nothing, or changes nothing."""
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in method.named_parameters():
            if name.endswith(("out", "matter", "keys", "scale", "bias")) or ".ups." in name:
                tensor.copy_(torch.randn(tensor.shape, generator=dice) * (0.3 / tensor.shape[-1] ** 0.5))
    return method


MAKERS: dict[str, Callable[[Backbone, int], Method]] = {
    "soft-prompt": lambda b, seed: SoftPrompt(b, tokens=4, prior=priors.Vocabulary(), seed=seed),
    "deep-prompt": lambda b, seed: DeepPrompt(b, tokens=3, layers=("input", 1, -1), seed=seed),
    "deep-prompt, no input": lambda b, seed: DeepPrompt(b, tokens=3, layers=(0, 2), seed=seed),
    "deep-prompt, cut": lambda b, seed: DeepPrompt(
        b, tokens=3, layers=("input", 1, 2), form="cut", seed=seed
    ),
    "prefix": lambda b, seed: PrefixPrompt(b, tokens=4, seed=seed),
    "prefix, MLP": lambda b, seed: PrefixPrompt(b, tokens=4, mlp=True, hidden=16, seed=seed),
    "p-tuning": lambda b, seed: PTuning(b, tokens=4, hidden=16, seed=seed),
    "p-tuning, LSTM": lambda b, seed: PTuning(b, tokens=4, encoder="lstm", hidden=16, seed=seed),
    "initial-state": lambda b, seed: InitialState(b, tokens=4, seed=seed),
    "lora": lambda b, seed: changed(LoRA(b, rank=2, seed=seed), seed),
    "synthetic-gradient": lambda b, seed: off_its_start(
        SyntheticGradient(b, hidden=8, step_size=3.0, ridge=0.0, seed=seed), seed
    ),
    "synthetic-gradient, rank 1": lambda b, seed: off_its_start(
        SyntheticGradient(b, hidden=8, rank=1, layers=(0, -1), seed=seed), seed
    ),
    "prompt-bias": lambda b, seed: PromptBias(b, bias=2.0 + seed),
    "pointer-cache": lambda b, seed: PointerCache(b, share=0.3 + 0.1 * seed, sharpness=4.0),
}
"""A name for each form of each method: (backbone, seed) to the method, before training."""


def alone(backbone: Backbone, row: Encoded, injection: Injection) -> Tensor:
    """The reference: one row, one run, no padding, every position through the head, nothing shared. In plain code.

    Vectors at layers are read in the same run as the tokens, each layer with a mask of its own; only keys, values and a
    state, which no token can stand for, are a cache.
    """
    if injection.logit_changes is not None:
        return _changed_one_by_one(backbone, row, injection)
    backbone = injection.view or backbone
    if injection.weight_changes is not None:
        backbone = _by_hand(backbone, row, injection)
    tokens = backbone.embed(torch.tensor(row.ids))
    parts = [tokens[: row.prompt_at], tokens[row.prompt_at :]]
    if injection.input_embeddings is not None:
        parts.insert(1, injection.input_embeddings[0].to(tokens.dtype))
    whole = torch.cat(parts)[None]
    size = whole.shape[1]
    mask = torch.ones(1, size, dtype=torch.bool)
    positions = torch.arange(size)[None]
    cache = None
    if injection.keys_values is not None:
        pairs = [(k.to(tokens.dtype), v.to(tokens.dtype)) for k, v in injection.keys_values]
        cache = backbone.runner.remember(pairs)
        mask = torch.ones(1, size + injection.front, dtype=torch.bool)
        positions = positions + injection.front
    if injection.state is not None:
        cache = injection.state
    deep = {layer: v.to(tokens.dtype) for layer, v in (injection.layer_embeddings or {}).items()}
    if not deep:
        logits = backbone.runner(whole, mask, positions, cache).logits[0]
    elif backbone.kind == "recurrent":
        with reading(lambda layer, h: torch.cat([deep[layer], h], 1) if layer in deep else h):
            rows = torch.ones(1, size, dtype=torch.bool)
            logits = backbone.runner(whole, rows, positions).logits[0][-size:]
    else:
        logits = _in_one_run(backbone, whole, deep, injection.cut)[-size:]
    return logits[row.answer_start + injection.length - 1 : -1]


def _changed_one_by_one(backbone: Backbone, row: Encoded, injection: Injection) -> Tensor:
    """Each logit of the answer after the change that the instruction makes where nothing follows it."""
    assert injection.logit_changes is not None
    last: list[Tensor] = []  # what the last layer gives
    with seeing(lambda layer, hidden: last.append(hidden[0]) if layer == backbone.num_layers else None):
        plain = alone(backbone, row, replace(injection, logit_changes=None))
    instruction = Encoded(row.ids[: row.answer_start], row.answer_start, 0)
    change = injection.logit_changes(Rows.collate([instruction]))
    before = last[-1][-len(plain) - 1 : -1]
    one = torch.zeros(1, dtype=torch.long)
    return torch.cat([change(logits[None], one, h[None]) for logits, h in zip(plain, before, strict=True)])


def _by_hand(backbone: Backbone, row: Encoded, injection: Injection) -> Backbone:
    """A view whose matrices are multiplied by twice: as they are, and from the instruction's last token on with their change."""
    assert injection.weight_changes is not None
    changes = injection.weight_changes(
        Rows.collate([Encoded(row.ids[: row.answer_start], row.answer_start, 0)])
    )
    view = backbone.view()
    for name, change in changes.items():
        layer, whole = view.model.get_submodule(name), change.up[0] @ change.down[0]

        def forward(x: Tensor, plain=layer.forward, whole: Tensor = whole) -> Tensor:
            added = x @ whole.T.to(x.dtype)
            added[:, : row.answer_start - 1] = 0
            return plain(x) + added

        layer.forward = forward
    return view


def _in_one_run(backbone: Backbone, whole: Tensor, deep: dict[int, Tensor], cut: bool) -> Tensor:
    """All vectors in front of the row, in the layers in which they do not stand masked from everyone."""
    order = sorted(deep, reverse=True)
    enters = torch.tensor(
        [layer for layer in order for _ in range(deep[layer].shape[1])] + [-1] * whole.shape[1]
    )
    total = len(enters)

    def put(layer: int, hidden: Tensor) -> Tensor:
        if layer not in deep:
            return hidden
        hidden = hidden.clone()
        hidden[:, enters == layer] = deep[layer]
        return hidden

    def masks(layer: int, mask: Tensor | None, hidden: Tensor) -> Tensor:
        token = enters == -1
        stands = token | (enters == layer if cut else enters <= layer)
        seen = torch.ones(total, total, dtype=torch.bool).tril() & stands[None] | torch.eye(
            total, dtype=torch.bool
        )
        return seen[None, None]

    padded = torch.cat([whole.new_zeros(1, int((enters >= 0).sum()), whole.shape[2]), whole], 1)
    ones = torch.ones(1, total, dtype=torch.bool)
    with reading(put, masks=masks):
        return backbone.runner(padded, ones, torch.arange(total)[None]).logits[0]
