"""A trace kept in memory beside the bare run of the model: reading rows, and writing on behind texts.

Times only; what the trace keeps is compared with transformers' own hidden states before, and with the text written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.analysis.trace import Trace, trace
from workbench.backbones.backbone import load_backbone
from workbench.bench.harness import Measurement, row
from workbench.bench.models import MEDIUM, Shape, Work, shapes
from workbench.methods.generate import GenerateConfig, generate
from workbench.tasks.encode import Encoded
from workbench.tasks.task import load_task

QUESTIONS, WRITTEN = 32, 16


@row("trace")
def traced() -> Sequence[Measurement]:
    """Every layer at every token, beside transformers' forward pass on the same rows, which keeps nothing.

    Its variants keep less, or are transformers' own `output_hidden_states`, which gives no table and no probabilities.
    The last measurement is a generation by tiny-llama, beside the same one untraced.
    """
    return [*(_reading(Work(shape)) for shape in shapes(MEDIUM)), _writing()]


def _reading(work: Work) -> Measurement:
    shape, backbone = work.shape, work.backbone
    backbone.tokenizer = _Numbers()  # type: ignore[assignment]
    ids = work.ids(seed=0)
    rows = [Encoded(tuple(one), shape.tokens - shape.answer, 0) for one in ids.tolist()]

    def ours(layers: Any = "all", positions: Any = "all") -> Trace:
        return trace(backbone, rows, layers, positions)

    @torch.no_grad()
    def peer(**options: Any) -> Any:
        return work.model(ids, **options)

    def own() -> tuple[Tensor, ...]:
        """What transformers keeps, where ours keeps it."""
        return tuple(hidden.float().cpu() for hidden in peer(output_hidden_states=True).hidden_states)

    def check() -> None:
        found, states, logits = ours(), own(), peer().logits.float()
        for number, hidden in enumerate(states[:-1]):  # the last is behind the final norm
            ours_here = torch.from_numpy(found[f"layer {number}"]).reshape(hidden.shape)
            error = float((ours_here - hidden).norm() / hidden.norm())
            assert error <= shape.tolerance, f"layer {number} differs by {error:.1e} of its norm"
        expected = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0].cpu()
        scores = torch.tensor(found.rows["log_probability"].to_numpy()).reshape(ids.shape)[:, 1:]
        error = float((scores - expected).abs().max() / expected.abs().max())
        assert error <= shape.tolerance, f"log-probabilities differ by {error:.1e}"

    return Measurement(
        "trace, reading" + shape.suffix,
        ours,
        peer,
        check=check,
        samples=7,
        notes=f"{_described(shape)}; ours: all layers, the output and all log-probabilities, in memory with their table; "
        "peer: transformers' forward pass with logits at every token, which keeps no hidden states",
        variants={
            "ours, the last token only": lambda: ours(positions="last"),
            "ours, one layer": lambda: ours(layers=1),
            "transformers, output_hidden_states": own,
        },
        device=shape.device,
        dtype=shape.dtype,
        tokens=shape.batch * shape.tokens,
    )


def _described(shape: Shape) -> str:
    return (
        f"{shape.layers} layers, width {shape.width}, vocabulary {shape.vocabulary:,}, {shape.tokens} tokens, "
        f"batch {shape.batch}"
    )


def _writing(questions: int = QUESTIONS, tokens: int = WRITTEN) -> Measurement:
    backbone = load_backbone("tiny-llama", device="cpu")
    prompts = [example.prompt for example in load_task("reading").examples("test", n=questions)]
    # sampled warm, so that texts go on to their last token, and one batch holds all
    config = GenerateConfig(max_new_tokens=tokens, temperature=3.0, batch_size=questions)

    def ours(positions: Any = "answer") -> Trace:
        return trace(backbone, prompts, "all", positions, generate=config)

    def peer() -> list[str]:
        return generate(backbone, prompts, config=config)

    def check() -> None:
        assert [text["answer"] for text in ours().texts] == peer(), "the texts differ"

    return Measurement(
        "trace, writing",
        ours,
        peer,
        check=check,
        samples=5,
        notes=f"tiny-llama, {questions} questions, at most {tokens} tokens written; ours keeps all layers of the tokens "
        "written, reads the last one too, and has their log-probabilities; peer: the same generation, untraced",
        variants={"ours, the questions' tokens too": lambda: ours("all")},
    )


class _Numbers:
    """Rows are ids already, and a token's text is its number."""

    bos_token_id = chat_template = None

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [0] if text else []}

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        return " ".join(map(str, ids))
