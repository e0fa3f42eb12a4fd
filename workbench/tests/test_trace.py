"""Traces: what is kept is what the model had, whoever shares the batch, while it reads and while it writes."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import workbench as wb
from workbench.analysis import trace as room
from workbench.analysis.trace import Trace, trace
from workbench.analysis.trace_files import TraceFolder
from workbench.backbones.backbone import Backbone
from workbench.backbones.layer_inputs import seeing
from workbench.backbones.states import read_state, state_sizes, write_states
from workbench.bench.memory import peak_memory
from workbench.errors import WorkbenchError
from workbench.methods import priors
from workbench.methods.soft_prompt import SoftPrompt
from workbench.tasks.encode import Encoded
from workbench.tasks.task import Example
from workbench.tests import zoo
from workbench.tests.methods_zoo import MAKERS

CHOSEN = zoo.ARCHITECTURES if os.environ.get("WORKBENCH_EVERY_ARCHITECTURE") else zoo.EVERY_COMMIT
TOLERANCE = 1e-4  # of the largest number
CHOSEN = (*CHOSEN, zoo.WITHOUT_CACHE)
every_backbone = pytest.mark.parametrize("architecture", CHOSEN)
TEXTS = ["a fox", "one much longer prompt of words", "mid size!"]


def distance(a: Any, b: Any) -> float:
    """Largest difference as a share of the largest number."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


def prompt_for(backbone: Backbone, seed: int = 0) -> SoftPrompt:
    return SoftPrompt(backbone, tokens=4, prior=priors.Vocabulary(), seed=seed)


def own_states(backbone: Backbone, text: str) -> dict[str, torch.Tensor]:
    """transformers' own hidden states of a text alone, BOS left out, and what its last block gives."""
    ids = backbone.tokenizer(text, return_tensors="pt").input_ids
    given: list[Any] = []
    hook = backbone.layers[-1].register_forward_hook(lambda module, inputs, output: given.append(output))
    with torch.no_grad():
        found = backbone.model(ids, output_hidden_states=True).hidden_states
    hook.remove()
    # transformers' recurrent models list what each block gives, which the next one reads; the others what each reads
    shift = backbone.model.config.model_type in ("rwkv", "mamba", "mamba2")
    states = {f"layer {i}": found[i - shift][0, 1:] for i in range(shift, backbone.num_layers)}
    last = given[0][0] if isinstance(given[0], tuple) else given[0]
    return {**states, "output": last[0, 1:]}


@every_backbone
def test_states_are_transformers_own(architecture: str) -> None:
    """Protects every layer's name: it is the hidden state that transformers lists for it, and not its neighbour's."""
    backbone = zoo.backbone(architecture)
    seen, own = trace(backbone, TEXTS[1:2]), own_states(backbone, TEXTS[1])
    assert {"layer 1", "layer 2", "output"} <= set(own) <= set(seen.places)
    for place, states in own.items():
        assert distance(seen[place], states) < TOLERANCE, place
    assert distance(seen["layer 1"], own["layer 2"]) > 100 * TOLERANCE  # one layer off
    assert distance(seen["output"], own["layer 2"]) > 100 * TOLERANCE
    assert distance(seen["layer 1"][:-1], own["layer 1"][1:]) > 100 * TOLERANCE  # one token off


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-rwkv"])
def test_the_bundled_backbones(name: str) -> None:
    """The same on the models that people open first, with the words that their tokenizers make."""
    backbone = wb.load_backbone(name)
    text = "the pet of david is a swan ."
    seen, own = wb.trace(backbone, [text], layers=("embeddings", "all")), own_states(backbone, text)
    for place, states in own.items():
        assert distance(seen[place][-4:], states[-4:]) < TOLERANCE, place
    ids = seen.table.token_id.tolist()
    assert distance(seen["embeddings"], backbone.embed(torch.tensor(ids)).detach()) == 0
    assert "".join(seen.table.token).split() == text.split()
    task = wb.load_task("reading")
    for texts in (task.examples(n=2), wb.load_task("reading", n=2)):
        assert set(wb.trace(backbone, texts, "output", "answer").table.task) == {"reading"}


@every_backbone
@given(data=st.data())
def test_batching_changes_nothing(architecture: str, data: st.DataObject) -> None:
    """Contract 1: a text's rows are those of the text alone, with a method and without, whatever positions are kept."""
    backbone = zoo.backbone(architecture)
    method = data.draw(st.sampled_from([None, prompt_for(backbone)]))
    positions = data.draw(st.sampled_from(["all", "last", "mean", [1, -1]]))
    texts = data.draw(st.lists(st.text("abcdef ", min_size=2, max_size=12), min_size=2, max_size=4))
    together = trace(backbone, texts, positions=positions, method=method)
    apart = [trace(backbone, [text], positions=positions, method=method) for text in texts]
    table = together.table
    for number, alone in enumerate(apart):
        here = (table.text == number).to_numpy()
        for place in together.places:
            assert distance(together[place][here], alone[place]) < TOLERANCE
        for column in ("index", "position", "token_id"):
            assert table[column][here].tolist() == alone.table[column].tolist()
        np.testing.assert_allclose(
            table.log_probability[here], alone.table.log_probability, rtol=1e-3, atol=1e-4
        )


@every_backbone
def test_mistakes_would_be_seen(architecture: str) -> None:
    """The tests here would see a dropped prompt and one pad let in: 100 times their tolerance."""
    backbone = zoo.backbone(architecture)
    method = prompt_for(backbone)
    right = trace(backbone, ["abcdef"], "output", method=method)
    assert distance(trace(backbone, ["abcdef"], "output")["output"], right["output"]) > 100 * TOLERANCE
    row = Encoded((0, 1, *backbone.tokenizer("abcdef").input_ids[1:]), 8, 1)
    padded = trace(backbone, [row], "output", range(2, 8), method)
    assert distance(padded["output"], right["output"]) > 100 * TOLERANCE


@every_backbone
def test_probabilities_are_those_of_the_whole_text(architecture: str) -> None:
    """Protects the numbers beside the text: each token's own, given all before it and the prompt."""
    backbone, method = zoo.backbone(architecture), prompt_for(zoo.backbone(architecture))
    ids = torch.tensor(backbone.tokenizer(TEXTS[0]).input_ids)
    with torch.no_grad():
        whole = torch.cat([method.injection().input_embeddings[0], backbone.embed(ids)])[None]
        ones = torch.ones(whole.shape[:2], dtype=torch.bool)
        logits = backbone.runner(whole.to(backbone.dtype), ones, torch.arange(whole.shape[1])[None]).logits[0]
    expected = logits[3:-1].float().log_softmax(-1).gather(1, ids[:, None])[:, 0]
    found = trace(backbone, TEXTS[:1], "output", range(len(ids)), method).table.log_probability
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    plain = trace(backbone, TEXTS[:1], "output", range(len(ids))).table.log_probability
    assert np.isnan(plain[0]) and plain[1:].notna().all()  # nothing stands before the first token


WRITTEN = [
    ("llama", "deep-prompt"),
    ("llama", "prefix"),
    ("llama", "lora"),
    ("rwkv", "initial-state"),
    ("rwkv", "deep-prompt, no input"),
    *((architecture, name) for architecture in CHOSEN for name in ("soft-prompt", None)),
]


@pytest.mark.parametrize(("architecture", "name"), WRITTEN)
def test_writing_is_reading_afterwards(architecture: str, name: str | None) -> None:
    """What is seen while writing is what one sees who reads the whole text, and each token is read once."""
    backbone = zoo.backbone(architecture)
    method = None if name is None else MAKERS[name](backbone, 1)
    layers = "all" if backbone.kind == "attention" else ("all", "states")
    config = wb.GenerateConfig(max_new_tokens=5)
    tokens = []

    def count(layer: int, hidden: torch.Tensor) -> None:
        if layer == 0:
            tokens.append(hidden.shape[0] * hidden.shape[1])

    wrote = trace(backbone, TEXTS, layers, method=method, generate=config)
    assert [text["answer"] for text in wrote.texts] == wb.generate(backbone, TEXTS, method, config)
    with seeing(count):
        trace(backbone, TEXTS[:1], "output", method=method, generate=config)
    table = wrote.table
    first = table[table.text == 0]
    if backbone.layouts.decoding and (name is None or name in ("lora", "prefix")):
        # the first token, BOS, is read and not traced
        assert sum(tokens) == len(first) + 1

    rows = [
        Encoded((1, *part.token_id), 1 + int((~part.is_answer).sum()), 0)
        for _, part in table.groupby("text", sort=True)
    ]
    read = trace(backbone, rows, layers, method=method)
    for place in wrote.places:
        assert distance(wrote[place], read[place]) < TOLERANCE, place
    same = ["text", "index", "position", "token_id", "token", "is_answer"]
    assert table[same].equals(read.table[same])
    np.testing.assert_allclose(table.log_probability, read.table.log_probability, rtol=1e-3, atol=1e-3)
    assert table.step.max() == config.max_new_tokens  # the last token written is read, too
    for _, part in table.groupby("text"):
        assert part.step[part.is_answer].tolist() == list(range(1, int(part.is_answer.sum()) + 1))
        assert (part.step[~part.is_answer] == 0).all()
    last = trace(backbone, TEXTS, "output", "last", method, generate=config)
    assert distance(last["output"], wrote["output"][table.groupby("text").tail(1).index]) < TOLERANCE


@every_backbone
def test_texts_that_end_at_different_times(architecture: str) -> None:
    """A row that goes on keeps its own states when others have ended, whatever the order in which they do."""
    backbone = zoo.backbone(architecture)
    config = wb.GenerateConfig(max_new_tokens=8, temperature=100.0)  # whatever comes
    free = trace(backbone, TEXTS, "all", "answer", generate=config)
    answers = [text["answer"] for text in free.texts]
    stops = [
        c
        for c in "".join(answer[:-1] for answer in answers)
        if c.isascii() and sum(c in answer for answer in answers) == 1
    ][:3]
    assert stops
    for stop in stops:
        seen = trace(backbone, TEXTS, "all", "answer", generate=replace(config, stop=(stop,)))
        counts = seen.table.groupby("text").size()
        assert counts.nunique() > 1
        for text, count in counts.items():
            here, there = (np.flatnonzero(one.table.text == text) for one in (seen, free))
            for place in seen.places:
                assert distance(seen[place][here], free[place][there[:count]]) < TOLERANCE
            assert seen.table.token_id[here].tolist() == free.table.token_id[there[:count]].tolist()


@pytest.mark.parametrize("place", ["before-bos", "after-bos", "marker"])
def test_a_prompt_shifts_positions(place: Any) -> None:
    """Tokens behind the prompt stand as many places later, those before it do not, and their indices stay."""
    backbone = zoo.backbone("llama")
    method = prompt_for(backbone)
    config = wb.TextConfig(prompt_position=place)
    text = "ab <prompt>cd"
    seen = trace(backbone, [text], "layer 0", range(6), method, text=config).table
    shifted = {"before-bos": 0, "after-bos": 1, "marker": 4}[place]
    assert seen["index"].tolist() == list(range(6))
    assert (seen.position - seen["index"]).tolist() == [0] * shifted + [4] * (6 - shifted)
    assert "".join(seen.token[1:]) == "ab cd"
    deep = trace(backbone, [text], "layer 0", [0], MAKERS["prefix"](backbone, 0)).table
    assert deep.position.tolist() == [4]


@pytest.mark.parametrize("architecture", [a for a in CHOSEN if zoo.backbone(a).kind != "attention"])
def test_states_are_those_after_each_token(architecture: str) -> None:
    """A state is kept after each token that is asked for, read alone, and is not its neighbour's; also with gaps between."""
    backbone = zoo.backbone(architecture)
    seen = trace(backbone, TEXTS, "states")
    assert seen.places == tuple(f"state {layer}" for layer in state_sizes(backbone))
    some = trace(backbone, TEXTS, "states", [2, 3, -4, -1])  # several tokens are read between two of these
    some_rows = some.table.set_index(["text", "index"]).index
    for text in (0, 1):
        ids = torch.tensor(backbone.tokenizer(TEXTS[text]).input_ids)
        here = (seen.table.text == text).to_numpy()
        for end in (3, len(ids) - 3, len(ids)):
            with torch.no_grad():
                ones = torch.ones(1, end, dtype=torch.bool)
                output = backbone.runner(
                    backbone.embed(ids[:end])[None], ones, torch.arange(end)[None], use_cache=True
                )
            for layer in state_sizes(backbone):
                own, place = read_state(backbone, output.cache, layer)[0], f"state {layer}"
                kept = seen[place][here]
                assert distance(kept[end - 2], own) < TOLERANCE
                assert distance(kept[end - 3], own) > 100 * TOLERANCE
                assert distance(some[place][some_rows.get_loc((text, end - 1))], own) < TOLERANCE
    last = trace(
        backbone, TEXTS, ["state 2" if architecture == "qwen3_next" else "state 1", "output"], "last"
    )
    for place in last.places:
        if place in seen.places:
            assert distance(last[place], seen[place][seen.table.groupby("text").tail(1).index]) < TOLERANCE


def test_a_traced_state_goes_on() -> None:
    """Put back into a cache, what a trace kept goes on as the state does that it was read from."""
    backbone = zoo.backbone("rwkv")
    ids = torch.tensor(backbone.tokenizer(TEXTS[1]).input_ids)
    seen = trace(backbone, TEXTS[1:2], "states", "last")
    ones = torch.ones(1, len(ids), dtype=torch.bool)
    with torch.no_grad():
        output = backbone.runner(
            backbone.embed(ids)[None], ones, torch.arange(len(ids))[None], use_cache=True
        )
        other = backbone.runner(backbone.embed(ids[:2])[None], ones[:, :2], ids[None, :2], use_cache=True)
        vectors = {layer: torch.from_numpy(seen[f"state {layer}"].copy()) for layer in range(3)}
        on = [
            backbone.runner(backbone.embed(ids[None, :4]), ones[:, :4], ids[None, :4], cache).logits
            for cache in (output.cache, write_states(backbone, other.cache, vectors), other.cache)
        ]
    assert distance(on[1], on[0]) < TOLERANCE
    assert distance(on[2], on[0]) > 100 * TOLERANCE


def test_states_without_a_reader_are_refused() -> None:
    """A state that is not there is refused in a sentence that says who has one."""
    with pytest.raises(WorkbenchError, match="no recurrent state; RWKV, Mamba"):
        trace(zoo.backbone("llama"), TEXTS, "states")
    with pytest.raises(WorkbenchError, match="layer 1 of small-qwen3_next has no recurrent state"):
        trace(zoo.backbone("qwen3_next"), TEXTS, ("output", "state 1"))


class Interrupted(Exception):
    """Somebody pressed stop."""


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("writing", [False, True])
def test_resumed_is_uninterrupted(writing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 3: byte for byte, in the folder and in what is read back; an interrupted one shows what is done."""
    monkeypatch.setattr(room, "_TEXTS", 2)
    backbone = zoo.backbone("rwkv")
    generate = wb.GenerateConfig(max_new_tokens=3, temperature=1.0, batch_size=2) if writing else None
    texts = {"one": TEXTS, "two": TEXTS[:2]}
    asked: dict[str, Any] = {
        "layers": ("all", "state 1"),
        "method": prompt_for(backbone),
        "generate": generate,
    }
    whole = trace(backbone, texts, folder=tmp_path / "whole", **asked)
    progress: list[room.TraceProgress] = []

    def stop(now: room.TraceProgress) -> None:
        progress.append(now)
        if now.texts == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        trace(backbone, texts, folder=tmp_path / "twice", progress=stop, **asked)
    (tmp_path / "twice" / "00001.safetensors").unlink()  # as if killed while it was written
    partial = Trace.load(tmp_path / "twice")
    assert not partial.complete and len(partial.texts) >= 2 and progress[0].left > 0
    again = trace(backbone, texts, folder=tmp_path / "twice", progress=progress.append, **asked)
    assert [(now.texts, now.of) for now in progress] == [(2, 5), (4, 5), (2, 5), (4, 5), (5, 5)]
    assert files_of(tmp_path / "twice") == files_of(tmp_path / "whole")
    loaded, memory = Trace.load(tmp_path / "whole"), trace(backbone, texts, **asked)
    for other in (again, loaded, memory):
        assert other.complete and other.rows.equals(whole.rows) and other.texts == whole.texts
        assert other.settings == whole.settings
        assert all(np.array_equal(other[place], whole[place]) for place in whole.places)
    assert loaded.table.task.unique().tolist() == ["one", "two"]
    for change, match in (
        ({"layers": "all"}, "places"),
        ({"method": prompt_for(backbone, 7)}, "method"),
        ({"positions": "last"}, "positions"),
    ):
        with pytest.raises(WorkbenchError, match=match):
            trace(backbone, texts, folder=tmp_path / "whole", **{**asked, **change})
    with pytest.raises(WorkbenchError, match="other texts"):
        trace(backbone, {"one": TEXTS[::-1]}, folder=tmp_path / "whole", **asked)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(WorkbenchError, match="not empty"):
        trace(backbone, texts, folder=tmp_path / "mine", **asked)


def test_fewer_texts_than_a_folder_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the number of texts: those of a longer trace never come back as those of a shorter one."""
    monkeypatch.setattr(room, "_TEXTS", 2)
    backbone = zoo.backbone("llama")
    trace(backbone, [*TEXTS, "more"], "output", folder=tmp_path / "four")
    before = files_of(tmp_path / "four")
    with pytest.raises(WorkbenchError, match=r"other texts \(from text 2 on\)"):
        trace(backbone, TEXTS[:2], "output", folder=tmp_path / "four")
    assert files_of(tmp_path / "four") == before


@pytest.mark.parametrize("lost", ["00001.safetensors", "00002.safetensors", "00001.parquet"])
def test_a_lost_part_is_seen_and_made_again(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished trace that has lost a part does not pass as whole; traced again it has that part, and keeps the others."""
    monkeypatch.setattr(room, "_TEXTS", 1)
    backbone, folder = zoo.backbone("llama"), TraceFolder(tmp_path / "three")
    assert not folder.whole
    trace(backbone, TEXTS, "output", folder=folder.path)
    assert folder.whole
    whole, others = files_of(folder.path), [f"0000{n}.safetensors" for n in range(3) if str(n) != lost[4]]
    times = [(folder.path / name).stat().st_mtime_ns for name in others]
    (folder.path / lost).unlink()
    assert not folder.whole
    if lost.endswith(".parquet"):
        with pytest.raises(WorkbenchError, match=rf"{lost} is missing; trace again"):
            Trace.load(folder.path)
    else:
        partial = Trace.load(folder.path)
        assert not partial.complete and len(partial.texts) == int(lost[4])
    assert trace(backbone, TEXTS, "output", folder=folder.path).complete
    assert files_of(folder.path) == whole
    assert [(folder.path / name).stat().st_mtime_ns for name in others] == times
    trace(backbone, [], "output", folder=tmp_path / "none")
    assert TraceFolder(tmp_path / "none").whole


FOREIGN = b'{"settings": {"model": "theirs"}}'


@pytest.mark.parametrize(
    ("name", "holds", "match"),
    [
        ("trace.json", b"{", "is damaged; delete"),
        ("trace.json", b"\xff", "is damaged; delete"),
        ("trace.json", b"{}", "says nothing of a trace; give"),
        ("trace.json", b"[1]", "says nothing of a trace; give"),
        ("trace.json", FOREIGN, "says nothing of a trace; give"),
        ("00000.parquet", b"no table", "is damaged; delete"),
        ("00000.parquet", None, "is damaged; delete"),
        ("00000.safetensors", b"no arrays", "is damaged; delete"),
        ("00000.safetensors", None, "is damaged; delete"),
    ],
)
def test_damaged_and_foreign_files_are_named(
    name: str, holds: bytes | None, match: str, tmp_path: Path
) -> None:
    """One sentence that names the file and says what to do, in place of an error of what reads it; None: from elsewhere."""
    backbone, path = zoo.backbone("llama"), tmp_path / "it" / name
    trace(backbone, TEXTS, "output", folder=path.parent)
    if holds is not None:
        path.write_bytes(holds)
    elif name.endswith(".parquet"):
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        save_file({"layer 0": torch.zeros(1)}, path)
    with pytest.raises(WorkbenchError, match=rf"{name} {match}") as error:
        Trace.load(path.parent)["output"]
    assert "\n" not in str(error.value)
    if holds is not None:
        with pytest.raises(WorkbenchError, match=rf"{name} {match}"):
            trace(backbone, TEXTS, "output", folder=path.parent)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """A file in its place, or in its parent's, is named; texts that are none leave no folder behind."""
    (tmp_path / "notes.txt").write_text("mine")
    backbone = zoo.backbone("llama")
    for folder in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "below"):
        with pytest.raises(WorkbenchError, match=rf"{folder} cannot be made a folder .*; give another"):
            trace(backbone, TEXTS, "output", folder=folder)
    with pytest.raises(WorkbenchError, match="a list of texts"):
        trace(backbone, "one string", "output", folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the texts need no more memory when they go to a folder; kept in memory they do."""
    monkeypatch.setattr(room, "_TEXTS", 4)
    backbone = zoo.backbone("llama")
    few, many = ["some words to read"] * 4, ["some words to read"] * 80

    def peak(texts: list[str], name: str | None) -> float:
        folder = None if name is None else tmp_path / name
        return peak_memory(lambda: trace(backbone, texts, folder=folder))

    base = peak(few, "few")
    assert peak(many, "many") < 1.3 * base
    assert peak(many, None) > 2 * base


def test_two_threads_do_not_meet() -> None:
    """Contract 2: two traces of one backbone at once are what each is alone."""
    backbone = zoo.backbone("llama")
    methods = [prompt_for(backbone, seed) for seed in (1, 2)]

    def run(method: SoftPrompt) -> list[np.ndarray]:
        return [trace(backbone, TEXTS, "output", method=method)["output"] for _ in range(5)]

    alone = [run(method)[0] for method in methods]
    found: dict[int, list[np.ndarray]] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: run(methods[i])})) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (0, 1):
        assert all(np.array_equal(array, alone[i]) for array in found[i])
    assert distance(alone[0], alone[1]) > 100 * TOLERANCE


def test_examples_positions_and_types() -> None:
    """Answers are those of the examples, a mean is over a text's own tokens, and float16 holds or says that it cannot."""
    backbone = zoo.backbone("llama")
    examples = [Example("ask", " yes"), Example("a longer one", " no")]
    answers = trace(backbone, {"qa": examples}, "output", "answer")
    table = answers.table
    assert "".join(table.token) == " yes no" and table.is_answer.all() and (table.task == "qa").all()
    every, mean = trace(backbone, examples, "output"), trace(backbone, examples, "output", "mean")
    for number in (0, 1):
        here = (every.table.text == number).to_numpy()
        assert distance(mean["output"][number], every["output"][here].mean(0)) < TOLERANCE
        assert mean.table.log_probability[number] == pytest.approx(
            every.table.log_probability[here].mean(), abs=1e-4
        )
    half = trace(backbone, examples, "output", dtype="float16")
    assert half["output"].dtype == np.float16 and distance(half["output"], every["output"]) < 1e-3
    rows, vectors = every.stacked(["output"])
    assert len(rows) == len(vectors) == len(every) and set(rows.place) == {"output"}
    big = zoo.make_model("llama")
    with torch.no_grad():
        big.model.embed_tokens.weight.mul_(1e8)
    loud = Backbone(big, zoo.tokenizer(), "loud")
    with pytest.raises(WorkbenchError, match="float16 cannot hold"):
        trace(loud, TEXTS, "layer 0", dtype="float16")


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"layers": "layer 9"}, "place"),
        ({"layers": 9}, "place"),
        ({"layers": []}, "no layer"),
        ({"positions": "lsat"}, "did you mean 'last'"),
        ({"positions": [40]}, "none at position 40"),
        ({"positions": []}, "no position"),
        ({"positions": "answer"}, "text 0 has no answer"),
        ({"dtype": "int8"}, "dtype"),
        ({"texts": "one string"}, "a list of texts"),
        ({"texts": None}, "a list of texts"),
        ({"texts": {"a task": "one string"}}, "a list of texts"),
        ({"texts": ["a", None]}, "text 1 is of type NoneType; give"),
        ({"texts": {"one": ["a"], "two": [{"prompt": "b"}]}}, "text 1 is of type dict; give"),
        ({"layers": None}, "layers is None; give 'all'"),
        ({"layers": [1.5]}, r"layers is \[1.5\]; give 'all'"),
        ({"positions": 3}, "positions is 3; give 'all', 'last', 'answer', 'mean', or indices"),
        ({"positions": None}, "positions is None; give"),
        ({"positions": [1.5]}, r"positions is \[1.5\]; give"),
        ({"positions": np.array([1.5])}, "give 'all'"),
        ({"positions": np.array([], int)}, "no position"),
        ({"texts": ["x" * 600], "text": wb.TextConfig(max_tokens=600)}, None),
    ],
)
def test_bad_input_is_one_sentence(asked: dict[str, Any], match: str | None) -> None:
    """What a user can mend is said; a text that is too long is cut as in training."""
    backbone = zoo.backbone("llama")
    arguments = {"texts": TEXTS, **asked}
    assert len(trace(backbone, [])) == len(trace(backbone, [])["output"]) == 0
    if match is None:
        assert len(trace(backbone, **arguments)) == 255
        return
    with pytest.raises(WorkbenchError, match=match):
        trace(backbone, **arguments)


def test_integers_of_any_type_and_texts_from_anywhere(tmp_path: Path) -> None:
    """NumPy's integers are integers, also to a folder that goes on; texts that come but once are listed."""
    backbone = zoo.backbone("llama")
    plain = trace(backbone, TEXTS, [0, 1], [1, -1], folder=tmp_path / "it")
    for layers, positions in (
        (np.arange(2), np.array([1, -1])),
        ([np.int64(0), np.int32(1)], (np.int64(1), np.int16(-1))),
        (range(2), range(1, -2, -2)),
    ):
        seen = trace(backbone, (text for text in TEXTS), layers, positions, folder=tmp_path / "it")
        assert seen.settings == plain.settings and seen.rows.equals(plain.rows)
    assert trace(backbone, {"a": iter(TEXTS)}, np.int64(-1)).places == ("layer 2",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bench_compares_the_same_work(dtype: torch.dtype) -> None:
    """The check of the row passes on a small shape in either type; nothing is timed."""
    from workbench.bench import trace as bench
    from workbench.bench.models import Shape, Work

    shape = Shape(4, 32, 4, 64, prompt=0, tokens=10, answer=3, batch=2, key_heads=2, inner=64, dtype=dtype)
    for measurement in (bench._reading(Work(shape)), bench._writing(3, 4)):
        assert measurement.check is not None
        measurement.check()
        for work in measurement.variants.values():
            work()
