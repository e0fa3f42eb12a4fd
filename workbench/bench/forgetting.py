"""How a prompt of six clauses is forgotten in 200 tokens, beside one bare forward pass over the tokens of all its variants.

Times only; the influences are compared with ones computed from the bare pass's own logits before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from workbench.analysis.clause_variants import make_variants
from workbench.analysis.forgetting import Forgetting, follow_forgetting, forgetting
from workbench.backbones.backbone import Backbone, bundled, load_backbone
from workbench.bench.harness import Measurement, row
from workbench.methods.generate import GenerateConfig, generate
from workbench.tasks.clauses import ClausePrompt, from_example
from workbench.tasks.encode import continuation_ids, encode_question
from workbench.tasks.task import load_task

CLAUSES, TOKENS = 6, 200
INFLUENCES = ("influence", "clause_influence")


@row("forgetting lens")
def lens() -> Sequence[Measurement]:
    """The influence of a prompt and of each of its clauses at each token, of a given text; and of one that is written.

    The peer of the given text is one forward pass on the same rows, padded on the right, with logits at every token: all that is needed,
    and nothing measured (transformers' own, or for RWKV ours, which is many times as fast). That of the written one is the same
    generation, which is one row where ours are eight, and measures nothing.
    """
    return [made for name in bundled() for made in (_given(name), _written(name))]


def _given(name: str) -> Measurement:
    backbone, prompt = load_backbone(name, device="cpu"), _story()
    tokens = continuation_ids(backbone.tokenizer, prompt.answer or "")[:TOKENS]
    ids, mask, starts = _rows(backbone, prompt, tokens)
    positions = torch.arange(ids.shape[1]).expand(len(ids), -1)

    def ours(measures: Sequence[str] = INFLUENCES) -> Forgetting:
        return forgetting(backbone, prompt, continuation=tokens, measures=measures)

    @torch.no_grad()
    def peer() -> Tensor:
        return backbone.runner(backbone.embed(ids), mask, positions).logits

    def check() -> None:
        seen, logits = ours(), peer()
        answers = [
            logits[b, start - 1 : start - 1 + TOKENS].log_softmax(-1) for b, start in enumerate(starts)
        ]
        expected = [
            kl_div(other, answers[0], reduction="none", log_target=True).sum(1) for other in answers[1:]
        ]
        found = np.column_stack([seen.values["influence"], seen.values["clause_influence"]])
        theirs = torch.stack(expected, 1).numpy()
        error = np.abs(found - theirs).max() / theirs.max()
        assert error <= 1e-4, f"influences differ by {error:.1e} of the largest"

    total = int(mask.sum())
    return Measurement(
        f"forgetting lens, {name}",
        ours,
        peer,
        check=check,
        notes=f"{name}, {CLAUSES} clauses, {TOKENS} tokens of a given story, {len(ids)} rows of {total:,} tokens together; ours: the "
        "influence of the prompt and of each clause at each token, with texts, checks and table; peer: one forward pass on "
        "the same rows with all logits, which measures nothing",
        variants={
            "ours, all measures of logits": lambda: ours(
                [*INFLUENCES, "log_probability", "clause_gain", "met"]
            )
        },
        tokens=total,
    )


def _written(name: str) -> Measurement:
    backbone, prompt = load_backbone(name, device="cpu"), _story()
    # sampled warm, so that a text goes on to its last token
    config = GenerateConfig(max_new_tokens=TOKENS // 4, temperature=3.0)

    def ours() -> str:
        return [
            step.text for step in follow_forgetting(backbone, prompt, measures=INFLUENCES, config=config)
        ][-1]

    def peer() -> list[str]:
        return generate(backbone, [prompt.prompt], config=config)

    def check() -> None:
        assert [ours()] == peer(), "the texts differ"

    return Measurement(
        f"forgetting lens, writing, {name}",
        ours,
        peer,
        check=check,
        samples=5,
        notes=f"{name}, {CLAUSES} clauses, {config.max_new_tokens} tokens written, step by step; ours: eight rows with both influences "
        "at each token, texts and checks; peer: the same generation, which is one row and measures nothing",
    )


def _story() -> ClausePrompt:
    """A story long enough, of the small world."""
    return from_example(load_task("stories", n=1, split="test", clauses=CLAUSES, length=TOKENS + 40)[0])


def _rows(
    backbone: Backbone, prompt: ClausePrompt, tokens: Sequence[int]
) -> tuple[Tensor, Tensor, list[int]]:
    """(B, S) ids and mask of all variants with the text but for its last token, padded on the right, and where the text begins."""
    prompts = [
        encode_question(variant.prompt, backbone.tokenizer).ids for variant in make_variants(prompt).rows
    ]
    rows = [[*ids, *tokens[:-1]] for ids in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.arange(longest)[None] < torch.tensor([[len(row)] for row in rows])
    return ids, mask, list(map(len, prompts))
