"""A trace kept in memory beside the bare run of the model, and nnsight beside both: reading rows, and writing on.

Times only; what the trace keeps is compared with transformers' own hidden states before, and with the text written.
nnsight is no dependency: where it is not installed (`pip install nnsight`), the notes of the measurement say so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from importlib.metadata import version
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

QUESTIONS = 32
WRITTEN = (16, 64)  # tokens; the last is read for the trace alone, which short texts feel


@row("trace")
def traced() -> Sequence[Measurement]:
    """Every layer at every token, beside transformers' forward pass on the same rows, which keeps nothing.

    Its variants keep less, or are others' ways of keeping hidden states, which give no table and no probabilities:
    transformers' own `output_hidden_states`, and nnsight's trace.
    The last measurements are generations by tiny-llama, beside the same ones untraced.
    """
    return [*(_reading(Work(shape)) for shape in shapes(MEDIUM)), *map(_writing, WRITTEN)]


def _reading(work: Work) -> Measurement:
    shape, backbone = work.shape, work.backbone
    backbone.tokenizer = _Numbers()  # type: ignore[assignment]
    ids = work.ids(seed=0)
    rows = [Encoded(tuple(one), shape.tokens - shape.answer, 0) for one in ids.tolist()]
    model = work.fresh()  # nothing of ours is installed in it

    def ours(layers: Any = "all", positions: Any = "all") -> Trace:
        return trace(backbone, rows, layers, positions)

    @torch.no_grad()
    def peer(**options: Any) -> Any:
        return model(ids, **options)

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
        for name, other in others.items():
            for number, (hidden, kept) in enumerate(zip(states[:-1], other(), strict=False)):
                error = float((kept - hidden).norm() / hidden.norm())
                assert error <= shape.tolerance, (
                    f"layer {number} of {name} differs by {error:.1e} of its norm"
                )

    others = {"transformers, output_hidden_states": own, **_nnsight(work, ids)}
    return Measurement(
        "trace, reading" + shape.suffix,
        ours,
        peer,
        check=check,
        samples=7,
        notes=f"{_described(shape)}; ours: all layers, the output and all log-probabilities, in memory with their table; "
        "peer: transformers' forward pass with logits at every token, which keeps no hidden states; "
        + (
            f"nnsight {version('nnsight')}"
            if _installed()
            else "nnsight is not installed here and not measured"
        ),
        variants={
            "ours, the last token only": lambda: ours(positions="last"),
            "ours, one layer": lambda: ours(layers=1),
            **others,
        },
        device=shape.device,
        dtype=shape.dtype,
        tokens=shape.batch * shape.tokens,
    )


def _installed() -> bool:
    return importlib.util.find_spec("nnsight") is not None


def _nnsight(work: Work, ids: Tensor) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """nnsight's way of keeping what every layer reads and the last one gives, where it is installed."""
    if not _installed():
        return {}
    from nnsight import NNsight, save

    model = NNsight(work.fresh())

    @torch.no_grad()
    def kept() -> tuple[Tensor, ...]:
        with model.trace(ids):
            states = save(
                []
            )  # as its documentation has it: the container is saved, and raw values go into it
            states.append(model.model.embed_tokens.output)
            for layer in model.model.layers:
                states.append(layer.output)
        return tuple(hidden.float().cpu() for hidden in states)

    return {"nnsight, every layer saved": kept}


def _described(shape: Shape) -> str:
    return (
        f"{shape.layers} layers, width {shape.width}, vocabulary {shape.vocabulary:,}, {shape.tokens} tokens, "
        f"batch {shape.batch}"
    )


def _writing(tokens: int, questions: int = QUESTIONS) -> Measurement:
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
        f"trace, writing {tokens} tokens",
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
