"""How a backbone is run: one call with one meaning for every architecture.

A runner takes input embeddings, a mask and position ids, and gives logits and a cache. It hides three
differences between models in transformers: what the cache argument is called, whether position ids are
taken, and whether the model's own recurrence can be trusted (RWKV's cannot, see `rwkv.py`). It never pads,
groups or injects anything: that is `layouts.py` and the room `methods`.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, RwkvForCausalLM

from workbench.backbones import layer_inputs, module_state, recompute, rwkv
from workbench.errors import WorkbenchError


class Output(NamedTuple):
    """What one run gives: `logits` (N, V) at the kept positions or (B, T, V), and the cache or None."""

    logits: Tensor
    cache: Any


class Runner(Protocol):
    """The one way in which the rest of the workbench runs a model."""

    grows: bool
    """Whether a layer may be handed more positions than the layer before it had."""

    def __call__(
        self,
        embeddings: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Any = None,
        use_cache: bool = False,
        keep: Tensor | None = None,
    ) -> Output:
        """Run the model.

        Args:
            embeddings: (B, T, width), what the embedding module returns for the tokens, prompts among them.
            mask: (B, S + T) bool, True at real tokens; S is the number of positions in the cache.
            positions: (B, T) position ids, counted over real tokens only.
            cache: what an earlier call returned, or None.
            use_cache: whether to return a cache.
            keep: (B, T) bool; only these positions go through the head, and logits come as (N, V),
                row by row. None keeps all, as (B, T, V).
        """
        ...

    def expand(self, cache: Any, rows: Tensor | int) -> Any:
        """A new cache: that of one row shared by so many rows, or the named rows, each as often as it is named.

        The given cache stays as it is. Gradients flow back to it.
        """
        ...

    def select(self, cache: Any, rows: Tensor) -> Any:
        """The cache of the rows named by the index tensor `rows`."""
        ...

    def remember(self, keys_values: Sequence[tuple[Tensor, Tensor]]) -> Any:
        """The cache that holds these keys and values, each (B, heads, P, head size), one pair a layer."""
        ...


class TransformersRunner:
    """Runs any causal LM of transformers through its own forward, so that head scales and caps are kept."""

    grows = False

    def __init__(self, model: PreTrainedModel):
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self.takes_positions = "position_ids" in accepted
        self.cache_argument = next((n for n in ("past_key_values", "cache_params") if n in accepted), None)
        self.keeps_logits = "logits_to_keep" in accepted
        self.lock: Any = contextlib.nullcontext()
        self.places: module_state.Places = {}

    def guard_module_state(self) -> None:
        """Serialise runs of a model that keeps its state in its modules, and carry that in its cache, if it has one.

        Found by looking, not by name: a run that leaves a new tensor attribute on a module shares it
        with every other thread.
        """
        embeddings = self.model.get_input_embeddings()(
            torch.zeros(1, 2, dtype=torch.long, device=_device(self.model))
        )
        ones = torch.ones(1, 2, dtype=torch.bool, device=embeddings.device)

        @torch.no_grad()
        def run() -> None:
            self(embeddings, ones, torch.arange(2, device=embeddings.device)[None], use_cache=True)

        places = module_state.find(self.model, run)
        if places:
            self.lock = threading.Lock()
            if self.cache_argument and module_state.carries(places, DynamicCache(config=self.model.config)):
                self.places = places

    def __call__(
        self,
        embeddings: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Any = None,
        use_cache: bool = False,
        keep: Tensor | None = None,
    ) -> Output:
        if self.cache_argument == "cache_params":  # a state has no columns to mask, only the new tokens do
            mask = mask[:, -embeddings.shape[1] :]
        arguments: dict[str, Any] = {
            "inputs_embeds": embeddings,
            "attention_mask": mask.long(),
            "use_cache": use_cache,
        }
        if self.takes_positions:
            arguments["position_ids"] = positions
        if self.places and use_cache and cache is None:
            cache = DynamicCache(config=self.model.config)
        if cache is not None:
            arguments[self.cache_argument or "past_key_values"] = cache
        if keep is not None and self.keeps_logits:
            arguments["logits_to_keep"] = keep
        kept = cache if use_cache else None
        with (
            recompute.model_run(self.lock, use_cache),
            module_state.carried(self.model, self.places, kept),
        ):
            output = self.model(**arguments)
        logits = output.logits
        if keep is not None and not self.keeps_logits:
            logits = logits[keep]
        found = getattr(output, "past_key_values", None)
        if found is None:
            found = getattr(output, "cache_params", None)
        if self.places:  # it gives none, but has written into it
            found = cache
        return Output(logits, found if use_cache else None)

    def expand(self, cache: Any, rows: Tensor | int) -> Any:
        def take(tensor: Tensor) -> Tensor:
            return (
                tensor.expand(rows, *tensor.shape[1:])
                if isinstance(rows, int)
                else tensor.index_select(0, rows)
            )

        made = copy.copy(cache)
        made.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in made.layers:
            if isinstance(getattr(layer, "keys", None), Tensor):
                layer.keys, layer.values = take(layer.keys), take(layer.values)
            if hasattr(
                layer, "recurrent_states"
            ):  # written in place by their layer, so each row needs its own
                for name in ("conv_states", "recurrent_states"):
                    states = getattr(layer, name)
                    setattr(
                        layer, name, {i: None if s is None else take(s).clone() for i, s in states.items()}
                    )
        return made

    def select(self, cache: Any, rows: Tensor) -> Any:
        cache.reorder_cache(rows)
        return cache

    def remember(self, keys_values: Sequence[tuple[Tensor, Tensor]]) -> Any:
        cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in enumerate(keys_values):
            cache.update(keys, values, layer)
        return cache


class RwkvRunner:
    """Runs RWKV-4 through the workbench's own recurrence: differentiable in the state, exact for ragged rows."""

    grows = True

    def __init__(self, model: RwkvForCausalLM):
        self.model = model

    def __call__(
        self,
        embeddings: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Any = None,
        use_cache: bool = False,
        keep: Tensor | None = None,
    ) -> Output:
        hidden, state = rwkv.forward(
            self.model,
            embeddings,
            mask[:, -embeddings.shape[1] :],
            cache,
            layer_inputs.edited,
        )
        if keep is not None:
            hidden = hidden[keep]
        return Output(self.model.get_output_embeddings()(hidden), state if use_cache else None)

    def expand(self, cache: rwkv.State, rows: Tensor | int) -> rwkv.State:
        return cache.expand(rows) if isinstance(rows, int) else cache.select(rows)

    def select(self, cache: rwkv.State, rows: Tensor) -> rwkv.State:
        return cache.select(rows)

    def remember(self, keys_values: Sequence[tuple[Tensor, Tensor]]) -> rwkv.State:
        raise WorkbenchError("a recurrent backbone keeps no keys and values; train its initial state instead")


RUNNERS: dict[str, type] = {"rwkv": RwkvRunner}
"""Architectures with a recurrence of our own, by `config.model_type`; every other goes through transformers."""


def make_runner(model: PreTrainedModel) -> Runner:
    """The runner for this model."""
    runner = RUNNERS.get(model.config.model_type, TransformersRunner)(model)
    if isinstance(runner, TransformersRunner):
        runner.guard_module_state()
    return runner


def _device(model: PreTrainedModel) -> torch.device:
    return model.get_input_embeddings().weight.device  # type: ignore[return-value]
