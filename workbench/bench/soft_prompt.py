"""One training step of a soft prompt, beside PEFT's. Times only; what both compute is compared before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from workbench.backbones.backbone import Backbone
from workbench.bench.harness import Measurement, row
from workbench.methods.apply import answer_logits
from workbench.methods.injection import Injection
from workbench.methods.rows import Rows

LAYERS, WIDTH, VOCABULARY = 6, 512, 32_000
PROMPT, TOKENS, ANSWER, BATCH = 200, 210, 80, 8


@row("soft-prompt step")
def soft_prompt_step() -> Sequence[Measurement]:
    """Forward and backward to the prompt's gradient, from the same start, of the same rows.

    The peer runs right-padded through its documented call, `model(input_ids, attention_mask, labels)`. Its
    variant leaves the labels out and hands transformers' `logits_to_keep` through PEFT, with the loss computed
    outside: faster than PEFT offers by itself, and the most that its user can get from it.
    """
    logging.set_verbosity_error()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=4 * WIDTH * 2 // 3,
        max_position_embeddings=1024,
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(3, VOCABULARY, (BATCH, TOKENS))
    lengths = torch.full((BATCH,), TOKENS)
    rows = Rows(ids, lengths, lengths - ANSWER, torch.zeros(BATCH, dtype=torch.long))

    peer_settings = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=PROMPT)
    peer_model: Any = get_peft_model(LlamaForCausalLM(config), peer_settings)
    peer_model.base_model.load_state_dict(model.state_dict())
    peer_model.eval()
    peer_prompt = peer_model.prompt_encoder.default.embedding.weight
    ours_prompt = peer_prompt.detach().clone().requires_grad_(True)
    backbone = Backbone(model, _NoTokenizer(), "llama")  # type: ignore[arg-type]
    mask = torch.ones_like(ids)
    labels = ids.clone()
    labels[:, : TOKENS - ANSWER] = -100
    kept = torch.zeros(BATCH, PROMPT + TOKENS, dtype=torch.bool)
    kept[:, PROMPT + TOKENS - ANSWER - 1 : -1] = True
    targets = ids[:, TOKENS - ANSWER :].flatten()

    def ours(**tricks: bool) -> tuple[torch.Tensor, torch.Tensor]:
        ours_prompt.grad = None
        logits, answers = answer_logits(backbone, rows, Injection(ours_prompt[None]), **tricks)
        loss = torch.nn.functional.cross_entropy(logits.float(), answers)
        loss.backward()
        assert ours_prompt.grad is not None
        return loss.detach(), ours_prompt.grad

    def peer() -> tuple[torch.Tensor, torch.Tensor]:
        peer_prompt.grad = None
        loss = peer_model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        assert peer_prompt.grad is not None
        return loss.detach(), peer_prompt.grad

    def peer_with_own_loss() -> tuple[torch.Tensor, torch.Tensor]:
        peer_prompt.grad = None
        logits = peer_model(input_ids=ids, attention_mask=mask, logits_to_keep=kept).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        assert peer_prompt.grad is not None
        return loss.detach(), peer_prompt.grad

    def check() -> None:
        our_loss, our_gradient = (t.clone() for t in ours())
        for other in (peer, peer_with_own_loss):
            loss, gradient = other()
            assert abs(float(our_loss - loss)) <= 1e-5, f"losses {our_loss} and {loss}"
            error = float((our_gradient - gradient).norm() / gradient.norm())
            assert error <= 1e-4, f"gradients differ by {error:.1e} of their norm"

    return [
        Measurement(
            "soft-prompt step",
            ours,
            peer,
            check=check,
            samples=7,
            notes=f"{LAYERS} layers, width {WIDTH}, vocabulary {VOCABULARY}, prompt {PROMPT}, {TOKENS} tokens of which "
            f"{ANSWER} answer, batch {BATCH}, float32; peer: PEFT prompt tuning, right-padded, with labels",
            variants={
                "ours, prompt in every row": lambda: ours(share_prefix=False),
                "ours, head on every position": lambda: ours(keep_answers=False),
                "ours, neither": lambda: ours(share_prefix=False, keep_answers=False),
                "PEFT, head on the answer through logits_to_keep": peer_with_own_loss,
            },
        )
    ]


class _NoTokenizer:
    """Rows are ids already."""

    chat_template = None
