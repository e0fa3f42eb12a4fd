"""ProSG, prompt synthetic gradients: a prompt written into the weights for the length of one generation (arXiv 2311.01981).

Holds the method only. The paper gives the idea (what an RNN-like model remembers of a prompt becomes a low-rank gradient of its
weights) and neither code nor sizes; what it leaves open is a field of the configuration, and ours. A prompt but for its last
token is read under the weights W; that token and all that follows under W + ΔW, each row its own ΔW. Where the factors of ΔW
come from is the source:

    error       nothing is trained: the error of the prompt's own next tokens at the residual stream, handed to every writer
    tokens      a learnt correction of it, token by token
    state       the state after the prompt, and nothing else: the paper's own words; recurrent backbones only
    gradient    the true gradient of the prompt's loss, which costs a backward pass: what the others stand for
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn

from workbench.backbones.backbone import Backbone
from workbench.backbones.linear_outputs import Changes, LowRank, install
from workbench.backbones.writers import Writer, find_writers
from workbench.data import SYNTHESISERS
from workbench.errors import WorkbenchError, unknown
from workbench.methods.injection import Injection
from workbench.methods.method import Method, load_method
from workbench.methods.prompt_gradient import (
    cosine,
    cut,
    decorrelated,
    exact,
    read_prompts,
    singular_values,
    true_gradient,
)
from workbench.methods.rows import Rows
from workbench.methods.synthesisers import StateSynthesiser, TokenSynthesiser, copying_loss, error_change
from workbench.settings import check_settings

Source = Literal["tokens", "state", "error", "gradient"]


@dataclass(frozen=True)
class SyntheticGradientConfig:
    """What a synthetic gradient is before it is trained."""

    source: Source = "tokens"
    """Where a change comes from: "tokens", "state" (both are trained), "error" or "gradient" (nothing is trained)."""
    rank: int = 0
    """The rank to which each change is cut; 0 leaves as many as the prompt has tokens. A change from the state has this rank
    by itself (0: 4)."""
    step_size: float = 3.0
    """η, by which errors are multiplied; "tokens" trains it from there on, for each matrix. With a ridge it is in units of the
    typical error: 1 moves what a matrix gives for one of the prompt's own inputs by about one error of that size."""
    ridge: float = 5.0
    """Decorrelates what each matrix read, so that a change does not answer to what all of the prompt's tokens have in common (see
    `decorrelated`); 0 takes the inputs as they are, and step_size in the loss's own units: a plain gradient step (0.1, say)."""
    steps: int = 1
    """Steps down the prompt's loss, of the source "gradient"."""
    hidden: int = 64
    """Width of the synthesiser's hidden layer."""
    alpha: float = 1.0
    """A change from the state is alpha / rank times the product of its factors."""
    layers: tuple[int, ...] = ()
    """Blocks whose matrices are changed, from 0; -1 is the last. None named: all."""
    matrices: tuple[str, ...] = ()
    """Which of a block's matrices that write into the residual stream, by the end of their names: "attention.output",
    "down_proj". None named: all."""
    match_steps: int = 0
    """So many updates, after `align_steps`, match the true gradient of the prompt (or what a `teacher` makes of it), by the cosine, before the
    response is learnt."""
    align_steps: int = 0
    """So many updates come before all others, in which the keys of "tokens" learn to answer where an answer says one of the
    prompt's tokens again (`synthesisers.copying_loss`): cheap ones, and many of the response's are saved."""
    forget: bool = False
    """Leave the prompt out of what is read from its last token on, so that the weights alone hold it."""
    seed: int = 0
    """Seed of the synthesiser's start."""

    def __post_init__(self) -> None:
        for name in ("layers", "matrices"):  # JSON gives a list; a single one may stand for itself
            given = getattr(self, name)
            several = isinstance(given, Iterable) and not isinstance(given, str)
            object.__setattr__(self, name, tuple(given) if several else (given,))
        check_settings(type(self), vars(self), "a synthetic gradient")
        if self.source not in get_args(Source):
            raise unknown("source of a synthetic gradient", self.source, get_args(Source))
        if min(self.rank, self.match_steps, self.align_steps) < 0 or self.steps < 1 or self.hidden < 1:
            raise WorkbenchError(
                "rank, match_steps and align_steps must be 0 or more, steps and hidden at least 1"
            )
        if self.align_steps and self.source != "tokens":
            raise WorkbenchError(
                f'align_steps are for the source "tokens"; "{self.source}" has no keys to train'
            )
        if not (self.step_size > 0 and self.alpha > 0 and self.ridge >= 0):
            raise WorkbenchError(
                "step_size and alpha must be above 0 (what is 0 lets no change through), and ridge 0 or more"
            )


class SyntheticGradient(Method):
    """Each row's prompt as a change of the weights that the rest of the row is read under.

    >>> method = wb.SyntheticGradient(wb.load_backbone("tiny-rwkv"), source="error")
    >>> wb.generate(backbone, ["write a story . hero : tom . begin :"], method=method)

    Sources "error", "tokens" and "gradient" need no state, and serve attention backbones as well.

    Args:
        backbone: the model whose matrices are changed, in a view of it; itself it stays as it is.
        config: a whole configuration, or the fields of one as keywords, see `SyntheticGradientConfig`.

    Attributes:
        writers: the matrices that are changed, see `backbones/writers.py`.
        view: the backbone with hooks that add a row's change.
        strength: by what every change is multiplied, 1.0; may be set, to sweep it.
        teacher: another synthetic gradient on the same matrices, whose changes are matched in place of the true gradient; None.
            No part of this one: it is not saved with it, and a run that is resumed while there is something to match needs it set again.

    Raises:
        WorkbenchError: layers or matrices that the backbone does not have, a rank larger than a matrix, or the source "state" on
            a backbone without one.
    """

    kind = "synthetic-gradient"
    Config = SyntheticGradientConfig

    def __init__(self, backbone: Backbone, config: SyntheticGradientConfig | None = None, **fields: Any):
        config = config or SyntheticGradientConfig(**fields)
        super().__init__(backbone, config)
        self.writers = _choose(backbone, config)
        self.view = backbone.view()
        install(
            self.view.model,
            [*(w.name for w in self.writers), *(w.gate for w in self.writers if w.gate is not None)],
        )
        self.strength = 1.0
        self.teacher: SyntheticGradient | None = None
        self.synthesisers = nn.ModuleList()
        dice = torch.Generator().manual_seed(config.seed)
        if config.source != "state":
            unit, of_keys = _sizes(self.view, self.writers, config.ridge)
            self._step = config.step_size / (unit if config.ridge else 1.0)
        if config.source == "tokens":
            self.synthesisers.extend(
                TokenSynthesiser(
                    w, backbone.width, config.hidden, self._step, (unit, of_keys[w.name]), config.ridge, dice
                )
                for w in self.writers
            )
        elif config.source == "state":
            from workbench.backbones.states import state_sizes

            sizes = state_sizes(backbone)
            layers = [at for at in dict.fromkeys(w.layer for w in self.writers) if at in sizes]
            self.writers = tuple(w for w in self.writers if w.layer in layers)
            self.synthesisers.extend(
                StateSynthesiser(
                    [w for w in self.writers if w.layer == at],
                    backbone.width,
                    sizes[at],
                    config.hidden,
                    config.rank or 4,
                    config.alpha,
                    dice,
                )
                for at in layers
            )
        if backbone.dtype == torch.float64:
            self.double()
        self.to(backbone.device)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "teacher":  # no part of this module, or it would be trained and saved with it
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def injection(self) -> Injection:
        """The view, and what it makes of each row's prompt."""
        return Injection(view=self.view, weight_changes=self.changes, forget=self.config.forget)

    def changes(self, rows: Rows) -> Changes:
        """What each row's prompt makes of every writer's matrix: (B, out, r) and (B, r, in). Reads no answer.

        Differentiable in what is trained, and in nothing else.
        """
        config = self.config
        made: Mapping[str, LowRank]
        if config.source == "gradient":
            made = true_gradient(self.view, self.writers, rows, self._step, config.steps, config.ridge)
        elif config.source == "state":
            from workbench.backbones.states import end_states

            parts: list[Any] = list(self.synthesisers)
            layers = [part.writers[0].layer for part in parts]
            states = end_states(self.view, rows.ids, rows.answer_start, layers)
            made = {name: c for part in parts for name, c in part(states[part.writers[0].layer]).items()}
        else:
            reading = read_prompts(self.view, self.writers, rows)
            if config.source == "error":
                made = {w.name: error_change(reading, w, self._step, config.ridge) for w in self.writers}
            else:
                made = {
                    w.name: module(reading) for w, module in zip(self.writers, self.synthesisers, strict=True)
                }
        rank = config.rank if config.source != "state" else 0
        return {name: _times(cut(change, rank), self.strength) for name, change in made.items()}

    def objective(self, rows: Rows, done: int) -> Tensor | None:
        """While keys are aligned, their `copying_loss`; then, while the true gradient, or the teacher, is matched: the mean over
        rows and matrices of 1 - cosine to it."""
        if done < self.config.align_steps:
            return self.objective_of_keys(rows)
        if done >= self.config.align_steps + self.config.match_steps:
            return None
        made = self.changes(rows)
        with torch.no_grad():
            taught = None if self.teacher is None else self.teacher.changes(rows)
        true = taught or true_gradient(self.view, self.writers, rows)
        return 1 - torch.stack([cosine(made[w.name], true[w.name]).mean() for w in self.writers]).mean()

    def beside(self, done: int) -> dict[str, Any]:
        """The teacher, while there is something to match: its configuration and a checksum of its weights; None for none."""
        last = self.config.align_steps + self.config.match_steps
        if not self.config.match_steps or done >= last:
            return {}
        of = self.teacher
        if of is None:
            return {"teacher": None}
        weights = save({k: v.detach().cpu().contiguous() for k, v in of.state_dict().items()})
        return {"teacher": {"config": asdict(of.config), "weights": sha256(weights).hexdigest()[:16]}}

    def objective_of_keys(self, rows: Rows) -> Tensor:
        """The `copying_loss` of the source "tokens" on whole rows, (), differentiable in what makes keys."""
        reading = read_prompts(self.view, self.writers, replace(rows, answer_start=rows.lengths))
        return copying_loss(list(self.synthesisers), reading, rows)  # type: ignore[arg-type]

    @torch.no_grad()
    def measure(self, rows: Rows) -> dict[str, float]:
        """The cosine between each matrix's change and the true gradient step, mean of rows; and the highest that the rank allows."""
        made, true = self.changes(rows), true_gradient(self.view, self.writers, rows)
        found: dict[str, float] = {}
        for writer in self.writers:
            found[f"cosine {writer.place}"] = float(cosine(made[writer.name], true[writer.name]).mean())
        rank = self.config.rank or (4 if self.config.source == "state" else 0)
        if rank:
            for writer in self.writers:
                squares = singular_values(true[writer.name]).square()
                share = squares[:, :rank].sum(1) / squares.sum(1).clamp(min=1e-30)
                found[f"highest cosine {writer.place}"] = float(share.sqrt().mean())
        return found

    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """Of the source "tokens" `step_size` (writers,), and the size of each `correction`; of "state" that of each `up`."""
        parts: list[Any] = list(self.synthesisers)
        if self.config.source == "tokens":
            found = {
                "step_size": [m.log_step.exp() for m in parts],
                "correction": [m.out.norm() for m in parts],
                "keys": [m.keys.norm() for m in parts],
            }
        else:
            found = {"up": [up.norm() for m in parts for up in m.ups]} if parts else {}
        return {name: torch.stack(sizes).cpu() for name, sizes in found.items()}

    @property
    def prompt_length(self) -> int:
        """0: a change of weights takes no position."""
        return 0


def bundled_synthesiser(backbone: Backbone) -> SyntheticGradient:
    """The trained method that comes with a bundled backbone: `make synthesiser` trains that of tiny-rwkv.

    >>> wb.generate(backbone, ["write a story . hero : tom . begin :"], method=wb.bundled_synthesiser(backbone))

    Raises:
        WorkbenchError: a backbone for which none is bundled.
    """
    folder = SYNTHESISERS / backbone.name
    if not folder.is_dir():
        known = ", ".join(sorted(p.name for p in SYNTHESISERS.iterdir())) if SYNTHESISERS.is_dir() else "none"
        raise WorkbenchError(
            f'no synthesiser is bundled for {backbone.name} (there is one for: {known}); train one, or use source="error"'
        )
    method = load_method(folder, backbone)
    assert isinstance(method, SyntheticGradient)
    return method


def _times(change: LowRank, by: float) -> LowRank:
    return change if by == 1 else LowRank(by * change.up, change.down)


def _choose(backbone: Backbone, config: SyntheticGradientConfig) -> tuple[Writer, ...]:
    """The writers that the configuration names."""
    known = find_writers(backbone)
    if not known:
        raise WorkbenchError(
            f"no matrix of {backbone.name} ({type(backbone.model).__name__}) writes into its residual stream as it is (a norm "
            "stands between), so an error there cannot be handed to one; use a backbone whose blocks end in a plain sum"
        )
    layers = []
    for layer in config.layers or range(backbone.num_layers):
        if not -backbone.num_layers <= layer < backbone.num_layers:
            raise WorkbenchError(
                f"{backbone.name} has no layer {layer}; it has {backbone.num_layers}, from 0"
            )
        layers.append(layer % backbone.num_layers)
    ends = sorted({w.within for w in known})
    for name in config.matrices:
        if not any(within == name or within.endswith(f".{name}") for within in ends):
            raise unknown(f"matrix of {backbone.name} that writes into the residual stream", name, ends)

    def named(writer: Writer) -> bool:
        return not config.matrices or any(
            writer.within == name or writer.within.endswith(f".{name}") for name in config.matrices
        )

    chosen = tuple(w for w in known if w.layer in layers and named(w))
    if not chosen:
        raise WorkbenchError(
            f"layers {list(config.layers)} of {backbone.name} have none of {list(config.matrices)}"
        )
    for writer in chosen:
        side = min(writer.inputs, backbone.width)
        if config.rank > side:
            raise WorkbenchError(
                f"rank {config.rank} is larger than the matrix {writer.place} of {backbone.name} allows, {side}; give a smaller rank"
            )
    return chosen


@torch.no_grad()
def _sizes(view: Backbone, writers: Sequence[Writer], ridge: float) -> tuple[float, dict[str, float]]:
    """The root mean square of an error's numbers, and of each writer's keys, on tokens thrown by fixed dice."""
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(view.vocabulary_size, (4, 32), generator=dice).to(view.device)
    lengths = torch.full((4,), 32, device=view.device)
    reading = read_prompts(view, writers, Rows(ids, lengths, lengths, 0 * lengths))

    def size(x: Tensor) -> float:
        return float(exact(x).square().mean().sqrt())

    keys = {
        name: size(decorrelated(x, reading.real, ridge) if ridge else x) for name, x in reading.inputs.items()
    }
    return size(reading.error), keys
