"""`workbench pretrain`: trains the bundled backbones from nothing on the small world, and nothing else.

`pretrain` yields steps; its run folder holds everything that is needed to go on after a kill, and at the
end the finished backbone with its card. It never draws text (`corpus`) and never measures (`score`, `card`).

    folder/config.json        the recipe that the run was started with
    folder/tokenizer/         trained once, at the start
    folder/metrics.jsonl      one line a step
    folder/checkpoint/        model.safetensors, optimizer.safetensors, state.json: replaced whole
    folder/backbone/          the result: what `load_backbone` reads, with README.md and card.json
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RwkvConfig,
    RwkvForCausalLM,
)

from workbench.backbones import rwkv
from workbench.backbones.card import write_card
from workbench.backbones.corpus import Batch, batches, make_shard, tokenizer_texts
from workbench.backbones.score import Probe, hidden_states
from workbench.backbones.tokenizer import train_tokenizer
from workbench.errors import WorkbenchError, unknown


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe of one bundled backbone; the same mixture, order of documents and tokenizer for all."""

    backbone: str = "tiny-llama"
    """Name of the result."""
    architecture: Literal["llama", "rwkv"] = "llama"
    """LlamaForCausalLM, or RwkvForCausalLM (RWKV-4)."""
    width: int = 192
    """Length of the hidden vectors."""
    layers: int = 4
    """Number of blocks."""
    heads: int = 3
    """Attention heads; llama only."""
    inner: int = 512
    """Width inside the feed-forward part."""
    context_length: int = 2048
    """Longest sequence in tokens that the model states."""
    vocabulary: int = 3072
    """Most entries of the tokenizer."""
    steps: int = 8600
    """Optimizer steps, of both cycles."""
    batch_tokens: int = 4096
    """Tokens of a step, padding included."""
    learning_rate: float = 2e-3
    """Peak of AdamW's rate, reached after the warm-up."""
    warmup: int = 50
    """Steps of warm-up."""
    hold: int = 1500
    """Step until which the rate stays at its peak; from there it falls on a line to zero at the cycle's last step."""
    first_cycle: int = 6000
    """Last step of the first cycle of the rate; in the second it rises again, and falls on a line to zero at the end."""
    later_rate: float = 1.5e-3
    """Peak rate of the second cycle."""
    later_documents: int = 421_000
    """Documents (to the end of a shard) after which the mixture is that of the second cycle, and answers weigh more."""
    weight_decay: float = 0.05
    """On matrices; norms, mixes, decays and embeddings are free of it."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    opening_documents: int = 140_000
    """Documents of the opening stage (to the end of a shard): short stories only, so that recall begins early."""
    opening_words: int = 45
    """Longest story of the opening stage."""
    opening_batch: int = 2048
    """Tokens of a step in the opening stage."""
    middle_documents: int = 180_000
    """Documents until which stories are of middle length; the whole mixture, as ever after."""
    middle_words: int = 200
    """Longest story until then."""
    shard_tokens: int = 250_000
    """Tokens of a shard: documents made, then sorted into batches, at a time; none is read twice."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16: a batch is read by a bfloat16 copy of the model; weights and optimizer stay float32."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    evaluate_every: int = 200
    """Steps between measurements of loss and recall on held-out stories."""
    card_samples: int = 100
    """Test samples a family that the model card measures."""
    card_cases: int = 1600
    """Clauses that the card's map of forgetting measures, for each number of clauses."""
    seed: int = 0
    """Of weights, documents and their order."""

    def __post_init__(self) -> None:
        if self.architecture not in ("llama", "rwkv"):
            raise unknown("architecture", self.architecture, ("llama", "rwkv"))
        if self.architecture == "llama" and self.width % self.heads:
            raise WorkbenchError(f"width {self.width} does not divide into {self.heads} heads")
        if self.vocabulary < 300 or self.vocabulary > 65535:
            raise WorkbenchError("the vocabulary must hold 300 to 65535 entries")


DECAYS, GATES = (-7.0, 1.0), 1.0
"""How RWKV's start differs from its author's (-5 to 3, and 0): more channels that remember for a whole story, and keys
and receptances that are not zero. From zeros all clauses that share a set of values ("hero", "friend") begin in the
same channels, and five thousand steps did not part them."""

RECIPES: dict[str, PretrainConfig] = {
    "tiny-llama": PretrainConfig(),
    "tiny-rwkv": PretrainConfig(
        backbone="tiny-rwkv", architecture="rwkv", learning_rate=5e-3, later_rate=3e-3
    ),
}


@dataclass(frozen=True)
class PretrainStep:
    """What one step did."""

    index: int
    """1 for the first."""
    loss: float
    """Weighted mean over the step's tokens, nats."""
    nats: float
    """Plain mean over the step's tokens, nats."""
    tokens: int
    """Tokens read so far, padding not counted."""
    seconds: float
    """Spent in steps so far, over all resumed parts."""
    learning_rate: float
    evaluation: dict[str, float] | None = None
    """Loss and recall on held-out stories, where this step measured them."""


def new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The untrained model of a recipe, its weights drawn from the recipe's seed."""
    special: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    state = torch.random.get_rng_state()
    torch.manual_seed(config.seed)
    try:
        if config.architecture == "llama":
            return LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=config.width,
                    num_hidden_layers=config.layers,
                    num_attention_heads=config.heads,
                    num_key_value_heads=config.heads,
                    intermediate_size=config.inner,
                    max_position_embeddings=config.context_length,
                    initializer_range=0.05,  # transformers' 0.02 is for models ten times as wide
                    **special,
                )
            )
        model = RwkvForCausalLM(
            RwkvConfig(
                hidden_size=config.width,
                attention_hidden_size=config.width,
                num_hidden_layers=config.layers,
                intermediate_size=config.inner,
                context_length=config.context_length,
                rescale_every=0,
                **special,
            )
        )
        rwkv.init_weights(model, decays=DECAYS, gates=GATES)
        return model
    finally:
        torch.random.set_rng_state(state)


class _HeadLoss(torch.autograd.Function):
    """Weighted cross-entropy of a linear head, whose gradient is made chunk by chunk in the forward pass.

    So the logits of a whole batch never exist, and nothing is computed twice. `chunk` rows of probabilities fit in a
    core's cache; `group` rows of errors are multiplied at a time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        chunk: int = 256,
        group: int = 1024,
    ):
        """hidden (N, d), head (V, d), targets (N,), weights (N,) that sum to one: the loss, and the plain mean."""
        matrix = head.to(hidden.dtype)
        grad_hidden, grad_head = torch.empty_like(hidden), torch.zeros_like(head)
        true = hidden.new_empty(len(hidden), 1, dtype=torch.float32)
        errors = hidden.new_empty(min(group, len(hidden)), len(head))
        for first in range(0, len(hidden), group):
            h, t, w = (x[first : first + group] for x in (hidden, targets[:, None], weights[:, None]))
            error = errors[: len(h)]
            parts = zip(*(x.split(chunk) for x in (h, t, true[first : first + group], error)), strict=True)
            for h_c, t_c, true_c, error_c in parts:
                share = (h_c @ matrix.T).float().softmax(-1)
                torch.gather(share, 1, t_c, out=true_c)
                error_c.copy_(share.scatter_(1, t_c, true_c - 1))
            grad_hidden[first : first + group] = (error @ matrix) * w
            grad_head += error.T @ (h * w).to(h.dtype)
        nats = -true[:, 0].clamp(min=1e-37).log()
        ctx.save_for_backward(grad_hidden, grad_head)
        return (nats * weights).sum(), nats.mean()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, grad_plain: Tensor):
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad_loss, grad_head * grad_loss, None, None, None, None


class _CausalAttention(torch.autograd.Function):
    """Causal attention by plain products, a block of queries at a time: on one core faster than torch's own."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, block: int = 256) -> Tensor:
        """q (scaled), k, v (rows, T, d): the means (rows, T, d)."""
        future = torch.full((block, block), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        out, shares = torch.empty_like(q), []
        for first, rows in zip(range(0, q.shape[1], block), q.split(block, 1), strict=True):
            last = first + rows.shape[1]
            scores = rows @ k[:, :last].transpose(1, 2)
            scores[:, :, first:] += future[: last - first, : last - first]
            shares.append(scores.softmax(-1))
            torch.bmm(shares[-1], v[:, :last], out=out[:, first:last])
        ctx.save_for_backward(q, k, v, *shares)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor):
        q, k, v, *shares = ctx.saved_tensors
        g_q, g_k = torch.empty_like(q), torch.zeros_like(k, dtype=torch.float32)
        g_v = torch.zeros_like(g_k)
        first = 0
        for share in shares:
            last = share.shape[2]
            g = grad[:, first:last]
            g_scores = torch._softmax_backward_data(g @ v[:, :last].transpose(1, 2), share, -1, q.dtype)
            torch.bmm(g_scores, k[:, :last], out=g_q[:, first:last])
            g_k[:, :last] += g_scores.transpose(1, 2) @ q[:, first:last]
            g_v[:, :last] += share.transpose(1, 2) @ g
            first = last
        return g_q, g_k.to(k.dtype), g_v.to(v.dtype), None


def _attend(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float, **_: Any):
    """transformers' interface to `_CausalAttention`; pads come last in a row, so no mask is needed."""
    rows = (x.flatten(0, 1) for x in (q * scaling, k, v))
    return _CausalAttention.apply(*rows).view_as(q).transpose(1, 2).contiguous(), None


AttentionInterface.register("workbench-causal", _attend)


def working_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The bfloat16 model that reads a batch: its matrices, norms and mixes are copies, all else is `model`'s own.

    Embeddings (and so the head), decays and bonuses stay float32 and shared: sums over many tokens end in them, or
    they are raised to high powers.
    """
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        if parameter is model.get_input_embeddings().weight or name.endswith(("time_decay", "time_first")):
            memo[id(parameter)] = parameter
        else:
            memo[id(parameter)] = nn.Parameter(parameter.detach().to(torch.bfloat16))
    copy = deepcopy(model, memo)
    if copy.config.model_type == "llama" and copy.device.type == "cpu":
        copy.set_attn_implementation("workbench-causal")
    return copy


def pull(working: PreTrainedModel, model: PreTrainedModel) -> None:
    """Hands the working copy's gradients to the model."""
    for own, copy in zip(model.parameters(), working.parameters(), strict=True):
        if own is not copy and copy.grad is not None:
            own.grad, copy.grad = copy.grad.float(), None


@torch.no_grad()
def push(model: PreTrainedModel, working: PreTrainedModel) -> None:
    """Rounds the model's weights into the working copy."""
    for own, copy in zip(model.parameters(), working.parameters(), strict=True):
        if own is not copy:
            copy.copy_(own)


def batch_loss(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted loss of a batch (with its gradient), and the plain mean, in nats a token."""
    device = model.device
    ids = torch.from_numpy(batch.ids).to(device)
    hidden = hidden_states(model, ids)
    # position p predicts p + 1; rows of the flat batch whose next token is real
    rows, at = np.nonzero(batch.mask[:, 1:])
    here = torch.from_numpy(rows * ids.shape[1] + at).to(device)
    weights = torch.from_numpy(batch.weights[rows, at + 1]).to(device)
    head = model.get_output_embeddings().weight
    return _HeadLoss.apply(
        hidden.flatten(0, 1).index_select(0, here), head, ids.flatten()[here + 1], weights / weights.sum()
    )


def rate(config: PretrainConfig, step: int) -> float:
    """Learning rate of step `step` (0 for the first)."""
    if step < config.first_cycle:
        start, peak, hold, end = 0, config.learning_rate, config.hold, min(config.first_cycle, config.steps)
    else:
        start, peak, end = config.first_cycle, config.later_rate, config.steps
        hold = start + config.warmup
    rise = min(1.0, (step + 1 - start) / max(1, config.warmup))
    fall = min(1.0, (end - step) / max(1, end - hold))
    return peak * rise * fall


def make_optimizer(model: PreTrainedModel, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices other than the embeddings."""
    embeddings = model.get_input_embeddings().weight
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in model.parameters():
        (matrices if parameter.dim() == 2 and parameter is not embeddings else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


def feed(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerBase, document: int, batch: int
) -> Iterator[tuple[int, int, Batch]]:
    """Batches without end from the given place on, each with its place.

    A place is the first document of a shard and a batch in it: together with the recipe it decides all that follows.
    """
    while True:
        opening = document < config.opening_documents
        longest = (
            config.opening_words
            if opening
            else config.middle_words
            if document < config.middle_documents
            else None
        )
        later = document >= config.later_documents
        shard, following = make_shard(
            tokenizer, config.seed, document, config.shard_tokens, longest, opening, later
        )
        size = config.opening_batch if opening else config.batch_tokens
        order = batches(shard, size, tokenizer.pad_token_id, seed=config.seed * 1_000_003 + document)
        for index, item in enumerate(islice(order, batch, None), start=batch):
            yield document, index, item
        document, batch = following, 0


def prepare_tokenizer(config: PretrainConfig, folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of `folder`, trained the first time."""
    if not (folder / "tokenizer_config.json").exists():
        train_tokenizer(
            tokenizer_texts(config.seed), config.vocabulary, config.context_length
        ).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def pretrain(
    config: PretrainConfig,
    folder: str | Path,
    *,
    device: str = "auto",
    stop_at: int | None = None,
) -> Iterator[PretrainStep]:
    """Trains `config` in `folder`, or goes on where the folder's last checkpoint stands.

    On the CPU, with the same number of threads, a run that was stopped and resumed gives the same bits as one that
    was not.

    Args:
        folder: run folder; one that holds another recipe is refused.
        device: "auto" takes a GPU where there is one.
        stop_at: last step of this call, for tests and for runs in parts.

    Raises:
        WorkbenchError: the folder holds another recipe, or the loss is not a number.
    """
    folder = Path(folder)
    _claim(config, folder)
    tokenizer = prepare_tokenizer(config, folder / "tokenizer")
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = new_model(config, tokenizer).to(where).train()  # type: ignore[arg-type]
    optimizer = make_optimizer(model, config)
    step, tokens, seconds, document, batch = _load_checkpoint(folder / "checkpoint", model, optimizer)
    working = working_copy(model) if config.precision == "bfloat16" else model
    _trim(folder / "metrics.jsonl", step)
    source = feed(config, tokenizer, document, batch)
    last = config.steps if stop_at is None else min(stop_at, config.steps)
    probe: Probe | None = None
    while step < last:
        begun = time.perf_counter()
        document, batch, data = next(source)
        lr = rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, nats = batch_loss(working, data)
        if not math.isfinite(loss.item()):
            raise WorkbenchError(
                f"the loss of step {step + 1} is not a number; lower learning_rate and start again"
            )
        loss.backward()
        pull(working, model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        push(model, working)
        step, tokens = step + 1, tokens + int(data.mask.sum())
        seconds += time.perf_counter() - begun
        evaluation = None
        if step % config.evaluate_every == 0 or step == config.steps:
            probe = probe or Probe(tokenizer)
            evaluation = probe(model.eval())
            model.train()
        result = PretrainStep(step, loss.item(), nats.item(), tokens, seconds, lr, evaluation)
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        if step % config.checkpoint_every == 0 or step == last:
            _save_checkpoint(
                folder / "checkpoint", model, optimizer, step, tokens, seconds, document, batch + 1
            )
        yield result
    if step == config.steps and not (folder / "backbone" / "card.json").exists():
        save_backbone(model, tokenizer, folder / "backbone")
        write_card(folder, config.card_samples, config.card_cases)


def save_backbone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes model (bfloat16) and tokenizer in transformers' format."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    small = type(model)(model.config).to(torch.bfloat16)  # type: ignore[arg-type]
    small.load_state_dict(state)
    small.generation_config.do_sample = False
    small.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _claim(config: PretrainConfig, folder: Path) -> None:
    path = folder / "config.json"
    if path.exists():
        if json.loads(path.read_text()) != asdict(config):
            raise WorkbenchError(f"{folder} holds a run of another recipe; name another folder, or delete it")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(config), indent=2) + "\n")
    except OSError as error:
        raise WorkbenchError(f"cannot write to {folder}: {error.strerror}") from error


def _names(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters, in the optimizer's order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _save_checkpoint(
    path: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    step: int,
    tokens: int,
    seconds: float,
    document: int,
    batch: int,
) -> None:
    """Writes beside `path` and renames, so that a kill leaves the old checkpoint or the new one, whole."""
    part, old = path.with_suffix(".part"), path.with_suffix(".old")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, part / "model.safetensors")
    moments: dict[str, Tensor] = {}
    for name, entry in zip(_names(model, optimizer), optimizer.state_dict()["state"].values(), strict=True):
        moments |= {f"{name}/{key}": value.contiguous() for key, value in entry.items()}
    save_file(moments, part / "optimizer.safetensors")
    state = {"step": step, "tokens": tokens, "seconds": seconds, "document": document, "batch": batch}
    with (part / "state.json").open("w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _load_checkpoint(
    path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[int, int, float, int, int]:
    """Fills model and optimizer; step, tokens, seconds, document and batch to go on from."""
    source = next((p for p in (path, path.with_suffix(".old")) if (p / "state.json").exists()), None)
    if source is None:
        return 0, 0, 0.0, 0, 0
    try:
        weights = load_file(source / "model.safetensors")
        moments = load_file(source / "optimizer.safetensors")
        state = json.loads((source / "state.json").read_text())
    except Exception as error:
        raise WorkbenchError(
            f"the checkpoint in {source} cannot be read; delete it to start again"
        ) from error
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    filled = optimizer.state_dict()
    filled["state"] = {
        index: {key: moments[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for index, name in enumerate(_names(model, optimizer))
    }
    optimizer.load_state_dict(filled)
    return state["step"], state["tokens"], state["seconds"], state["document"], state["batch"]


def _trim(path: Path, step: int) -> None:
    """Drops lines of steps that no checkpoint holds, so that the file has every step once."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["index"] <= step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break
    part = path.with_suffix(".part")
    part.write_text("".join(kept))
    part.rename(path)
