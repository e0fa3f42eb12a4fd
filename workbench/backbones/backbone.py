"""A backbone: a frozen language model with its tokenizer, its layers, its kind and what it can do exactly.

`load_backbone` takes a bundled name, a folder or a Hub id. The model is never changed afterwards: no
parameter of it has a gradient, and nothing here or above writes into it.
"""

from __future__ import annotations

import copy
import functools
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from workbench.backbones import layer_inputs, recompute, states
from workbench.backbones.layouts import Layouts, probe
from workbench.backbones.runner import Runner, make_runner
from workbench.data import BACKBONES
from workbench.errors import WorkbenchError, unknown

_OPTIONS = ("device", "dtype", "allow_remote_code", "device_map", "attn_implementation", "quantization_config",
            "max_memory", "offload_folder", "revision", "token", "cache_dir", "local_files_only")  # fmt: skip

Kind = Literal["attention", "recurrent", "hybrid"]


class Backbone:
    """A frozen causal language model, ready to be prompted.

    Attributes:
        name: what it was loaded by.
        model: the transformers model, in eval mode, no parameter with a gradient.
        tokenizer: its tokenizer.
        kind: "attention", "recurrent" or "hybrid".
        layers: the list of its blocks, first to last.
        runner: the one way to run it (see `runner.py`).
        origin: the backbone that this is a view of; None for one of its own.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str):
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = None
        self.runner: Runner = make_runner(model)
        self.layers: list[nn.Module] = _find_layers(model)
        layer_inputs.install(self.layers)
        recompute.install(self.layers)
        self.kind: Kind = _find_kind(model, self._cache(2))
        self.origin: Backbone | None = None
        self._alike: weakref.ref[Backbone] | None = None  # the last one found to have its weights

    @property
    def width(self) -> int:
        """Length of an embedding vector."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding matrix (the tokenizer may use fewer)."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def context_length(self) -> int | None:
        """Longest sequence in tokens, prompt included; None for a recurrent model, which has no such limit."""
        if self.kind == "recurrent":
            return None
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @property
    def device(self) -> torch.device:
        """Where embeddings live; prompts and batches go there."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations."""
        return self.model.dtype

    @functools.cached_property
    def layouts(self) -> Layouts:
        """Which batch layouts are exact here, found by a small numerical probe on first use."""
        return probe(self.runner, self._some_vocabulary())

    @functools.cached_property
    def state(self) -> dict[str, int]:
        """What one row remembers, in numbers kept: `fixed` whatever was read, and `per_token` more for each token.

        Counted in the cache after two and after three tokens, so a sliding window counts as per token. Both are
        0 for a model that gives no cache.
        """
        two, three = (_numbers(self._cache(tokens)) for tokens in (2, 3))
        return {"fixed": two - 2 * (three - two), "per_token": three - two}

    @functools.cached_property
    def proven_states(self) -> dict[int, int]:
        """The layers whose recurrent state `states.py` reads and writes, found by a small numerical probe on first use.

        Layer to the length of its vector; empty for attention, and where no reader is proven.
        """
        if self.kind == "attention" or not self.layouts.decoding:
            return {}
        return states.prove(self.runner, self._some_vocabulary())

    def _some_vocabulary(self) -> Tensor:
        """(V, width) with 4,096 tokens at most, for probes."""
        return self.vocabulary()[: min(self.vocabulary_size, 4096)]

    def _cache(self, tokens: int) -> Any:
        with torch.no_grad():
            embeddings = self.vocabulary()[:1].expand(tokens, -1)[None]
            mask = torch.ones(1, tokens, dtype=torch.bool, device=self.device)
            return self.runner(
                embeddings, mask, torch.arange(tokens, device=self.device)[None], use_cache=True
            ).cache

    def view(self) -> Backbone:
        """The same backbone with modules of its own over the very same tensors: nothing is copied, nothing probed again.

        Whoever asked for it may put other modules or tensors in place of its own, never write into one that is shared;
        it is dropped by letting it go (ours).

        Raises:
            WorkbenchError: weights that are not all in the memory of one device.
        """
        places = {str(p.device) for p in self.model.parameters()}
        if len(places) > 1 or "meta" in places:
            where = " and ".join(sorted(places)).replace("meta", "offloaded")
            raise WorkbenchError(
                f"the weights of {self.name} are spread ({where}), and only a backbone on one device can be run with "
                "changed weights; load it without device_map"
            )
        shared: list[Any] = [
            tensor
            for module in self.model.modules()
            for tensor in (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
            if isinstance(tensor, Tensor)
        ]
        shared.append(getattr(self.runner, "lock", None))
        _ = self.layouts  # found now, so that the copy below has them
        made = copy.copy(self)
        made.model, made.layers, made.runner = copy.deepcopy(
            (self.model, self.layers, self.runner), {id(thing): thing for thing in shared}
        )
        made.origin, made._alike = self, None
        return made

    def stands_for(self, other: Backbone) -> bool:
        """Whether it may be run where the other is given: it is the other or a view of it, or what it is a view of is the same
        kind of model with the very same weights (another view, a copy, or the same files loaded again).

        Weights are compared once for each other backbone, and only where neither is the other's view.
        """
        own = self.origin or self
        if other is self or other is own or (self._alike is not None and self._alike() is other):
            return True
        ours, theirs = dict(own.model.named_parameters()), dict(other.model.named_parameters())
        same = type(own.model) is type(other.model) and ours.keys() == theirs.keys()
        same = same and all(_equal(weight, theirs[name]) for name, weight in ours.items())
        if same:
            self._alike = weakref.ref(other)
        return same

    def embed(self, ids: Tensor) -> Tensor:
        """(…) token ids to (…, width): what the layers read, so with Gemma's √width factor."""
        return self.model.get_input_embeddings()(ids.to(self.device))

    def vocabulary(self) -> Tensor:
        """(V, width): the embedding of every token, in the space that the layers read. No gradient."""
        with torch.no_grad():
            return self.embed(torch.arange(self.vocabulary_size, device=self.device))

    def describe(self) -> dict[str, Any]:
        """Facts for tables and run directories."""
        return {
            "name": self.name,
            "architecture": type(self.model).__name__,
            "kind": self.kind,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "layers": self.num_layers,
            "width": self.width,
            "vocabulary": self.vocabulary_size,
            "context": self.context_length,
            "state": self.state,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
        }

    def card(self) -> dict[str, Any] | None:
        """The model card of a bundled backbone (`card.json`), or None."""
        path = BACKBONES / self.name / "card.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def __repr__(self) -> str:
        facts = self.describe()
        return f"Backbone({facts['name']!r}, {facts['kind']}, {facts['parameters']:,} parameters, {facts['device']})"


def bundled() -> list[str]:
    """Names of the backbones that come with the workbench."""
    return (
        sorted(p.name for p in BACKBONES.iterdir() if (p / "config.json").is_file())
        if BACKBONES.is_dir()
        else []
    )


def load_backbone(
    name: str | Path,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    allow_remote_code: str | None = None,
    **options: Any,
) -> Backbone:
    """Load a frozen language model.

    Args:
        name: a bundled backbone (`workbench backbones` lists them), a folder written by `save_pretrained`, or
            a Hub id such as "meta-llama/Llama-3.2-1B".
        device: "auto" takes the accelerator where there is one and the CPU otherwise; or "cpu", "cuda:1", …
            Ignored when `device_map` is given.
        dtype: "auto" is the checkpoint's own type on an accelerator and float32 on the CPU.
        allow_remote_code: the same id again, to allow code that comes with that one model to run.
        **options: passed to `AutoModelForCausalLM.from_pretrained`: `device_map`, `attn_implementation`,
            `quantization_config`, `revision`, …

    Raises:
        WorkbenchError: no such backbone, weights that are not safetensors, or an unknown device or dtype.
    """
    name = str(name)
    source = locate(name)
    target = _device(device)
    trust = allow_remote_code is not None
    if trust and allow_remote_code != name:
        raise WorkbenchError(
            f"remote code was allowed for {allow_remote_code!r}, but the backbone is {name!r}; give the same id in both"
        )
    kept = {k: options[k] for k in ("revision", "token", "cache_dir", "local_files_only") if k in options}
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust, **kept)
        if getattr(config, "model_type", None) == "rwkv":
            config.rescale_every = 0  # transformers halves weights in place otherwise
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust, **kept)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=_dtype(dtype, target),
            trust_remote_code=trust,
            **{"use_safetensors": True, **options},
        )
    except TypeError as error:
        words = str(error).split("unexpected keyword argument ")
        if len(words) == 2 and words[1].strip("'\"") in options:
            raise unknown("option of load_backbone", words[1].strip("'\""), _OPTIONS) from error
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _explain(name, source, error) from error
    if "device_map" not in options and "quantization_config" not in options:
        model.to(target)  # type: ignore[arg-type]
    return Backbone(model, tokenizer, name)


def locate(name: str) -> str:
    """A bundled name or a folder to a path; a Hub id stays as it is. Raises WorkbenchError for what is neither."""
    if name in bundled():
        return str(BACKBONES / name)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise WorkbenchError(
                f"the folder {name!r} holds no config.json; give a folder written by save_pretrained"
            )
        return str(path)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    if "/" in name:
        raise WorkbenchError(
            f"there is no folder {name!r}; give an existing folder, a bundled name or a Hub id"
        )
    raise unknown("backbone", name, bundled())


def _device(device: str) -> torch.device:
    if device == "auto":
        from accelerate import PartialState

        return PartialState().default_device
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise WorkbenchError(
            f"the device {device!r} is not available here; use device='auto' or 'cpu'"
        ) from error
    return target


def _dtype(dtype: str | torch.dtype, device: torch.device) -> str | torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    known = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "float64": torch.float64,
    }
    if dtype not in known:
        raise unknown("dtype", dtype, ["auto", *known])
    return known[dtype]


def _explain(name: str, source: str, error: Exception) -> WorkbenchError:
    """One sentence for the ways in which transformers fails to load a model."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return WorkbenchError(
            f"{name!r} brings its own code; read it, then load with allow_remote_code={name!r} to let it run"
        )
    if "safetensors" in text and ("not appear" in text or "no file" in text.lower() or "does not" in text):
        return WorkbenchError(f"{name!r} has no safetensors weights; convert them with save_pretrained first")
    if isinstance(error, SafetensorError):
        return WorkbenchError(
            f"the weights of {name!r} are damaged ({text[:120]}); copy or download them again"
        )
    if not Path(source).is_dir():
        return WorkbenchError(
            f"{name!r} is neither bundled nor a folder, and could not be had from the Hub ({text[:160]}); "
            f"bundled are {', '.join(bundled()) or 'none'}"
        )
    return WorkbenchError(f"{name!r} could not be loaded: {text[:240]}")


def _find_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks: the outermost list of as many modules as the config says there are layers."""
    count = model.config.get_text_config().num_hidden_layers
    lists: Sequence[nn.ModuleList] = [
        m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count
    ]
    if not lists:
        raise WorkbenchError(
            f"{type(model).__name__} has no list of its {count} layers; only such models are served"
        )
    return list(lists[0])


def _find_kind(model: PreTrainedModel, cache: Any) -> Kind:
    """What the layers remember with: keys and values, a state, or both. Read off a cache, else off the config."""
    layers = getattr(cache, "layers", None)
    if layers:
        keys = any(isinstance(getattr(layer, "keys", None), Tensor) for layer in layers)
        states = any(hasattr(layer, "recurrent_states") for layer in layers)
    elif cache is None:
        types = getattr(model.config.get_text_config(), "layer_types", None) or []
        keys = any(t.endswith("attention") and t != "linear_attention" for t in types)
        states = any(t == "linear_attention" for t in types)
    else:
        keys, states = False, True
    return "hybrid" if keys and states else "recurrent" if states else "attention"


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two weights are one, or equal in type, place and every number."""
    return a is b or (a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))


def _numbers(cache: Any) -> int:
    """Numbers in the tensors of a cache, whatever it is made of."""
    if isinstance(cache, Tensor):
        return cache.numel()
    if isinstance(cache, dict):
        return sum(_numbers(part) for part in cache.values())
    if isinstance(cache, (tuple, list)):
        return sum(_numbers(part) for part in cache)
    parts = [
        getattr(cache, name, None) for name in ("layers", "keys", "values", "conv_states", "recurrent_states")
    ]
    return (
        0
        if cache is None
        else sum(_numbers(part) for part in parts if part is not None and not callable(part))
    )
