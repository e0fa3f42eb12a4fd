"""What every trainable method is: an `nn.Module` that makes an `Injection`, saves itself and loads elsewhere.

Saved methods are a folder of two files, `method.json` (kind, configuration, shapes, backbone) and
`method.safetensors` (tensors). The registry `METHODS` maps a kind to its class.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.errors import WorkbenchError, unknown
from workbench.methods import priors
from workbench.methods.injection import Injection
from workbench.methods.rows import Rows
from workbench.settings import check_settings
from workbench.tasks.encode import TextConfig

_loading: ContextVar[bool] = ContextVar("a method is being loaded", default=False)

MERGED = " with a LoRA merged"
"""What the name of a backbone gets for each LoRA in its matrices; by the whole name there is nothing to load."""

METHODS: dict[str, type[Method]] = {}
"""Kinds of method that can be made and loaded, by name."""


class Method(nn.Module):
    """Base of every method. A subclass sets `kind`, `Config` and `_label`, and makes its `injection`.

    Attributes:
        kind: its name in files, forms and on the command line.
        Config: its configuration dataclass.
        text: how examples became tokens when it was trained; evaluation and generation do the same by default.
    """

    kind: ClassVar[str]
    Config: ClassVar[type]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        METHODS[cls.kind] = cls

    def __init__(self, backbone: Backbone, config: Any):
        super().__init__()
        self.config = config
        self.text = TextConfig()
        self._priors: dict[int | None, priors.Distribution] = {}
        self._dice: torch.Generator | None = None
        self.made_for = {"name": backbone.name, "width": backbone.width, "layers": backbone.num_layers}

    @classmethod
    def from_config(cls, backbone: Backbone, config: Any) -> Method:
        """A new, untrained method."""
        return cls(backbone, config)

    def draw(self, backbone: Backbone, tokens: int, layer: int | None = None) -> Tensor:
        """Start vectors (tokens, width) float32 on the backbone's device, drawn from the configuration's prior.

        The dice are seeded once for each method, so each call draws anew. `layer` is the space: what that layer reads;
        None for that of input embeddings.
        """
        if _loading.get():  # what is loaded next replaces it, and the prior's data may be gone
            return torch.zeros(tokens, backbone.width, device=backbone.device)
        if self._dice is None:
            self._dice = torch.Generator().manual_seed(self.config.seed)
        return self._prior(backbone, layer).sample(tokens, self._dice).to(backbone.device, torch.float32)

    def _prior(self, backbone: Backbone, layer: int | None) -> priors.Distribution:
        if layer not in self._priors:
            self._priors[layer] = priors.from_description(self.config.prior).fit(backbone, layer)
        return self._priors[layer]

    @property
    def prior_facts(self) -> list[dict[str, Any]]:
        """What each prior that was drawn from says of itself, with what was measured when it was fitted."""
        return [prior.describe() for prior in self._priors.values()]

    def injection(self) -> Injection:
        """What to put into the model."""
        raise NotImplementedError

    def drawn(self) -> dict[int | None, Tensor]:
        """The trained vectors that the prior drew, by the space: a layer, or None for input embeddings. (n, width)."""
        return {}

    def log_prior(self, backbone: Backbone) -> Tensor:
        """Log density of the vectors now under the prior that drew them: (), in nats, differentiable.

        Raises:
            WorkbenchError: a method that trains no drawn vectors, or a prior without a density.
        """
        vectors = self.drawn()
        if not vectors:
            raise WorkbenchError(
                f"{self.kind} trains no vectors of a prior, so none can pull them; leave pull at 0"
            )
        return torch.stack([self._prior(backbone, at).log_prob(e).sum() for at, e in vectors.items()]).sum()

    def objective(self, rows: Rows, done: int) -> Tensor | None:
        """What the update after `done` others lowers instead of the answers' nats: (), differentiable; None: those nats."""
        return None

    def beside(self, done: int) -> dict[str, Any]:
        """What the updates after `done` others need and the configuration does not say, by the attribute that holds it, as JSON.

        A run writes down that of its start, and is resumed with the same or not at all.
        """
        return {}

    def measure(self, rows: Rows) -> dict[str, float]:
        """Numbers of its own that belong to a look at validation rows; written down with loss and accuracy."""
        return {}

    def snapshot(self) -> dict[str, Tensor]:
        """The tensors worth drawing: what moves while the method trains, on the CPU, detached."""
        raise NotImplementedError

    @property
    def prompt_length(self) -> int:
        """Positions that the method adds to a row."""
        raise NotImplementedError

    @property
    def parameters_trained(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def save(self, folder: str | Path) -> Path:
        """Write the method to a folder; `load_method` reads it back. Overwrites a method saved there before."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(state, folder / "method.safetensors")
        facts = {
            "kind": self.kind,
            "config": dataclasses.asdict(self.config),
            "text": dataclasses.asdict(self.text),
            "backbone": self.made_for,
        }
        (folder / "method.json").write_text(json.dumps(facts, indent=2) + "\n")
        return folder


def configured(kind: str, settings: Mapping[str, Any]) -> Any:
    """The configuration of a kind of method, from some of its fields; the others have their defaults.

    Raises:
        WorkbenchError: no such method, a setting that it does not have, a value of another type, or one that it refuses.
    """
    if kind not in METHODS:
        raise unknown("method", kind, METHODS)
    given = described(dict(settings))
    check_settings(METHODS[kind].Config, given, f"the method {kind}")
    return METHODS[kind].Config(**given)


def described(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a configuration, a prior object among them as it describes itself."""
    prior = fields.get("prior")
    return {**fields, "prior": prior.describe()} if isinstance(prior, priors.Prior) else fields


@torch.no_grad()
def remembered(backbone: Backbone, vectors: Tensor) -> Any:
    """The cache of one row in which the backbone has read (P, width) vectors and nothing else."""
    given = vectors.to(backbone.device, backbone.dtype)[None]
    ones = torch.ones(1, len(vectors), dtype=torch.bool, device=backbone.device)
    return backbone.runner(given, ones, ones.long().cumsum(1) - 1, use_cache=True).cache


def load_method(folder: str | Path, backbone: Backbone) -> Method:
    """Load a method saved by `Method.save` or trained in a run (its folder `method/`, or the run itself).

    Raises:
        WorkbenchError: no method there, a damaged file, a backbone of another width or depth, or one without the LoRAs that
            were merged into that of the method.
    """
    folder = Path(folder)
    if not (folder / "method.json").is_file() and (folder / "method" / "method.json").is_file():
        folder = folder / "method"
    facts = read_facts(folder)
    made_for = facts["backbone"]
    for key, have in (("width", backbone.width), ("layers", backbone.num_layers)):
        if made_for[key] != have:
            raise WorkbenchError(
                f"the method in {folder} was made for {made_for['name']} ({key} {made_for[key]}), "
                f"but {backbone.name} has {key} {have}; load it onto the backbone that it was trained on"
            )
    check_merged(f"the method in {folder}", made_for["name"], backbone.name, "load it onto")
    cls = METHODS[facts["kind"]]
    token = _loading.set(True)
    try:
        method = cls.from_config(backbone, cls.Config(**facts["config"]))
    finally:
        _loading.reset(token)
    method.text = TextConfig(**facts["text"])
    try:
        method.load_state_dict(load_file(folder / "method.safetensors"))
    except Exception as error:  # safetensors raises its own types for truncated and foreign files
        raise WorkbenchError(
            f"the file {folder / 'method.safetensors'} is damaged or missing; train again"
        ) from error
    return method.to(backbone.device)


def check_merged(what: str, made_for: str, given: str, do: str) -> None:
    """Refuse a backbone, by its name, that has fewer LoRAs merged than the one that something was made for.

    do: what is to be done with the right backbone, up to its name: "load it onto".
    """
    if made_for.count(MERGED) > given.count(MERGED):
        raise WorkbenchError(
            f"{what} was made for {made_for}, not for {given}; load the LoRA onto that, merge it by `merged()`, and {do} the "
            "backbone that this gives"
        )


def read_facts(folder: Path) -> dict[str, Any]:
    """`method.json`, checked."""
    path = folder / "method.json"
    if not path.is_file():
        raise WorkbenchError(
            f"{folder} holds no trained method (no method.json); give the folder of a finished run"
        )
    try:
        facts = json.loads(path.read_text())
        kind = facts["kind"]
    except (ValueError, KeyError) as error:
        raise WorkbenchError(f"the file {path} is damaged; train again or restore it") from error
    if kind not in METHODS:
        raise unknown("method", kind, METHODS)
    return facts
