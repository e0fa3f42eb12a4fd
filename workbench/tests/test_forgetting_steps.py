"""The panels of notebook 04 without a browser: they write, switch, read again, measure, map and train for real, and are found again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from workbench.analysis.weight_changes import change_table, prompt_rows
from workbench.tasks.clauses import from_story
from workbench.views import telling
from workbench.views.forgetting_steps import SHOWN, ForgettingSteps
from workbench.views.form import Form
from workbench.views.many_changes import map_changes, prompts_with
from workbench.views.synthesisers import Synthesisers, SynthesiserSettings
from workbench.views.telling import (
    EXAMPLES,
    Asked,
    Telling,
    TellSettings,
    Told,
    clauses_of,
    example_settings,
    guessed,
    sources,
)

RWKV = "tiny-rwkv"


def panel_in(folder: Path, **settings: object) -> ForgettingSteps:
    given = {"tokens": 10, "example": "4 clauses"} | settings
    return ForgettingSteps(folder / "forgetting", [RWKV, "tiny-llama"], **given)  # type: ignore[arg-type]


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def texts(panel: ForgettingSteps) -> dict[str, str]:
    return {name: seen.text for name, seen in panel.texts().items()}


def test_a_text_is_written_beside_others_and_found_again(tmp_path: Path) -> None:
    """Protects the way from the button to the figures, what each switch adds to them, and the cell that is run again."""
    panel = panel_in(tmp_path)
    assert "press Generate" in panel._status.value and panel._end.disabled and panel.clauses.data().empty
    busy = time.thread_time()
    panel._go.click()
    assert time.thread_time() - busy < 0.2, "a callback must return at once: the page waits for it"
    assert (
        panel.wait(120) and "wb-error" not in panel._status.value and "Written: 1 text" in panel._status.value
    )
    prompt, backbone = panel.form.value.asked, wb.load_backbone(RWKV)
    config = wb.GenerateConfig(max_new_tokens=10)
    assert texts(panel) == {"plain": wb.generate(backbone, [prompt.prompt], config=config)[0]}
    assert panel.clauses.texts.keys() == panel.influence.texts.keys() == panel.text.texts.keys() == {"plain"}
    assert [name for _, name in panel._measure.options] == [*SHOWN]
    assert "clause_state" in SHOWN and panel.texts()["plain"].values["clause_state"][0].min() > 0
    assert panel.weights.data().empty

    panel.switch("error", 0.5)
    assert panel.wait(120)
    method = wb.SyntheticGradient(backbone, source="error")
    method.strength = 0.5
    name = "ProSG, error (nothing trained) × 0.5"
    assert texts(panel)[name] == wb.generate(backbone, [prompt.prompt], method=method, config=config)[0]
    wanted = change_table(method, prompt_rows(method, [prompt.prompt]))
    np.testing.assert_allclose(panel.weights.data()["norm"], wanted["norm"], rtol=1e-3)

    panel.read_again(4)
    assert panel.wait(120)
    again = panel.texts()["read again behind 4"]
    assert again.again_at == 4 and again.ids[:4] == panel.texts()["plain"].ids[:4] and len(again.ids) == 10
    assert "Read again behind token 4" in panel._came.value and [*panel.clauses.texts] == [*panel.texts()]
    panel._measure.value = "state_cosine"
    until(
        lambda: np.asarray(panel.clauses.widget().data[0].z).shape[0] == 5
    )  # four layers, and the due words
    files = sorted(panel.told.home.glob("*.jsonl"))  # type: ignore[union-attr]
    before = [file.stat().st_mtime_ns for file in files]
    panel.switch("")
    assert panel.wait(60) and name not in panel.texts() and panel.weights.data().empty
    panel.switch("error", 0.5)
    assert panel.wait(60) and name in panel.texts()
    assert [file.stat().st_mtime_ns for file in files] == before, "what is written is not written again"

    ForgettingSteps._works.clear()  # as in a kernel that was started anew
    later = panel_in(tmp_path, tokens=99)
    assert "moved to a newer cell" in panel._status.value and later.form.value.tokens == 10
    assert later.wait(60) and texts(later) == texts(panel) and len(later.texts()) == 3
    assert later._strength.value == 0.5 and later._again.value == 4 and not later.weights.data().empty
    later.close()


def test_a_text_is_seen_while_it_is_written_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the heat map that fills, the switch that is turned meanwhile, and an end that loses nothing."""
    from workbench.analysis import forgetting as source

    slow = source._Lens.follow

    def slowly(self: object, *given: object) -> object:
        for step in slow(self, *given):  # type: ignore[arg-type]
            time.sleep(0.05)
            yield step

    monkeypatch.setattr(source._Lens, "follow", slowly)
    panel = panel_in(tmp_path, tokens=400, temperature=1.0)
    panel.generate()
    until(lambda: len(panel.clauses.texts.get("plain", wb_none()).ids) > 3)
    assert panel.form.disabled and panel._go.disabled and "Writing: token" in panel._status.value
    first = len(panel.clauses.texts["plain"].ids)
    until(lambda: len(panel.clauses.texts["plain"].ids) > first)
    assert panel.clauses.figure().layout.xaxis.range[1] == 400.5, "the axis has room for what is to come"
    panel.switch("error")
    until(lambda: len(panel.texts()) == 2)
    plain = len(panel.texts()["plain"].ids)
    until(lambda: len(panel.texts()["plain"].ids) > plain, 30)
    panel._go.click()
    assert panel._fault is None or "being written" in str(panel._fault)
    panel._end.click()
    assert panel.wait(60) and "Stopped" in panel._status.value and not panel.form.disabled
    assert len(panel.texts()) == 2 and 3 < len(panel.texts()["plain"].ids) < 400
    panel.close()


def wb_none() -> object:
    class Nothing:
        ids = ()

    return Nothing()


def test_chips_follow_the_prompt_and_what_is_wrong_is_said_at_its_field(tmp_path: Path) -> None:
    """Protects a prompt in the box: examples, own words, chips taken away, and those that do not stand in it."""
    panel = panel_in(tmp_path)
    controls = panel.form.controls
    assert (
        controls["clauses"].value == guessed(EXAMPLES["4 clauses"].prompt)
        and len(controls["clauses"].value) == 4
    )
    controls["example"].value = "8 clauses"
    assert controls["prompt"].value == EXAMPLES["8 clauses"].prompt and len(controls["clauses"].value) == 8
    controls["prompt"].value = "Write about Tom. Let it end sadly."
    assert controls["clauses"].value == ("Write about Tom.", "Let it end sadly.") and panel.form.valid
    controls["clauses"].value = ("Let it end sadly.",)
    assert [clause.text for clause in panel.form.value.asked.clauses] == ["Let it end sadly."]
    for field, wrong, said in (
        ("clauses", ("End well.",), "'End well.' does not occur in the prompt"),
        ("clauses", (), "no clauses"),
        ("prompt", "  ", "prompt is empty"),
    ):
        before = panel.form.value
        controls[field].value = wrong
        assert any(said in error for error in panel.form.errors.values()), panel.form.errors
        panel._go.click()
        assert said in unescape(panel._status.value) and panel.told is None
        panel.form.value = before
    with pytest.raises(wb.WorkbenchError, match="switched on"):
        panel.map_many()
    panel.close()


def test_a_story_keeps_its_exact_checks_whatever_chips_are_taken_away() -> None:
    prompt = EXAMPLES["8 clauses"].prompt
    whole = from_story(prompt)
    some = clauses_of(prompt, [whole.clauses[6].text, whole.clauses[2].text])
    assert some.clauses == (whole.clauses[6], whole.clauses[2])
    assert TellSettings(**example_settings("8 clauses")).asked == clauses_of(prompt, guessed(prompt))  # type: ignore[arg-type]


def test_of_the_prompt_that_is_forgotten_no_clause_is_met() -> None:
    """Protects the words of the menu: the model's own greedy text misses all that falls due."""
    name = "a prompt that is forgotten"
    prompt = from_story(EXAMPLES[name].prompt)
    config = wb.GenerateConfig(max_new_tokens=TellSettings(**example_settings(name)).tokens)
    met = [
        v.met for v in prompt.judge(wb.generate(wb.load_backbone(RWKV), [prompt.prompt], config=config)[0])
    ]
    assert met.count(True) == 0 and met.count(False) >= 3
    assert [len(from_story(example.prompt).clauses) for example in EXAMPLES.values()] == [4, 8, 12, 6]


def test_what_the_backbone_cannot_read_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    """A prompt that is longer than the context of tiny-llama, found only when it is read."""
    long = "write a story . hero : tom . begin : " * 300
    panel = panel_in(tmp_path, backbone="tiny-llama", prompt=long, clauses=("hero : tom .",))
    panel.generate()
    assert panel.wait(120)
    assert "token" in panel.form.errors["prompt"], panel._status.value
    assert not list((tmp_path / "forgetting").glob("*/asked.json")) and panel.told is None
    panel.form.value = TellSettings(str(tmp_path), **example_settings("4 clauses"))
    panel.generate()
    assert panel.wait(120) and str(tmp_path) in panel.form.errors["backbone"]
    panel.close()


def test_an_attention_backbone_has_influence_and_no_state(tmp_path: Path) -> None:
    panel = panel_in(tmp_path, backbone="tiny-llama", tokens=6)
    panel.generate()
    assert panel.wait(120) and len(panel.texts()["plain"].ids) == 6
    assert [name for _, name in panel._measure.options] == ["clause_influence", "clause_gain"]
    panel.switch("error")
    assert panel.wait(120) and len(panel.texts()) == 2 and "wb-error" not in panel._status.value
    panel.close()


def test_a_failed_text_leaves_the_others(tmp_path: Path) -> None:
    """A synthesiser that is not there: said in a sentence, taken back, and the plain text stands."""
    told = Told.begin(tmp_path / "0001-x", TellSettings(**example_settings("4 clauses"), tokens=3))
    told.ask(Asked(str(tmp_path / "nowhere")))
    work = Telling(told)
    work.start()
    work.join(120)
    assert isinstance(work.error, wb.WorkbenchError) and "nowhere" in str(work.error)
    assert [*told.asked] == ["00"] and not work.takes(Asked("error"))


def test_many_prompts_are_mapped_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the number beside the map: the prompts have the clause, its value is the label, and it is kept."""
    prompts, values = prompts_with("ending", 12)
    for prompt, value in zip(prompts, values, strict=True):
        (clause,) = [c for c in from_story(prompt).clauses if c.kind == "ending"]
        assert clause.value == value
    made = map_changes(RWKV, "error", "ending", tmp_path, 12)
    assert made.vectors.shape[0] == 12 and made.values == tuple(values)
    monkeypatch.setattr("workbench.views.many_changes.make_method", None)
    kept = map_changes(RWKV, "error", "ending", tmp_path, 12)
    np.testing.assert_array_equal(kept.vectors, made.vectors)
    with pytest.raises(TypeError):
        map_changes(RWKV, "gradient", "ending", tmp_path, 12)
    with pytest.raises(wb.WorkbenchError, match="kind of clause"):
        prompts_with("wing")


# --- training one's own


def test_a_synthesiser_is_trained_and_can_be_switched_on(tmp_path: Path) -> None:
    """Protects the second panel and what the first makes of it: a loss and cosines by step, and a text by what was trained."""
    panel = Synthesisers(
        tmp_path / "synthesisers", [RWKV], align_steps=1, steps=2, clauses=2, length=32, batch_size=2
    )
    panel.train()
    assert panel.wait(300) and "Finished: step 3 of 3" in panel._status.value, panel._status.value
    assert len(panel.curves.data()) == 3
    cosines = panel.curves.cosines()
    assert set(cosines["layer"]) == set(range(4)) and cosines["cosine"].between(-1, 1).all()
    assert set(cosines["step"]) >= {1, 2, 3} and len(panel.curves.figure().data) > 8
    assert panel.curves.first == 1 and len(panel.curves.figure().data[1].x) == 2, (
        "the answer is learnt in two"
    )
    again = Synthesisers(tmp_path / "synthesisers", [RWKV])
    assert again.form.value == panel.form.value and len(again.curves.data()) == 3
    again.close()

    first = panel_in(tmp_path)
    run = str(panel.run.path)  # type: ignore[union-attr]
    assert run in first.sources and run in [source for _, source in sources(tmp_path, RWKV)]
    assert run not in [source for _, source in sources(tmp_path, "tiny-llama")]
    first.generate()
    first.switch(run)
    assert first.wait(120) and len(first.texts()) == 2 and "wb-error" not in first._status.value
    assert not first.weights.data().empty
    first.close()
    panel.close()


def test_the_bundled_synthesiser_is_the_first_choice_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "SYNTHESISERS", tmp_path)
    assert sources(tmp_path, RWKV)[0] == ("error (nothing trained)", "error")
    backbone = wb.load_backbone(RWKV)
    method = wb.SyntheticGradient(backbone, source="tokens", hidden=4)
    method.save(tmp_path / RWKV)
    assert sources(tmp_path, RWKV)[0] == ("bundled", str(tmp_path / RWKV))
    made = telling.make_method(backbone, str(tmp_path / RWKV), 0.5)
    assert made is not None and made.strength == 0.5 and made.config.source == "tokens"
    wb.SoftPrompt(backbone, tokens=2).save(tmp_path / "soft")
    with pytest.raises(wb.WorkbenchError, match="another kind"):
        telling.make_method(backbone, str(tmp_path / "soft"))


def test_the_form_of_a_synthesiser_is_its_job_and_back(tmp_path: Path) -> None:
    own = tmp_path / "mine.jsonl"
    own.write_text("")
    for settings in (
        SynthesiserSettings(clauses=3, length=60, rank=2, align_steps=7, match_steps=4, seed=3),
        SynthesiserSettings(file=str(own), source="state"),
    ):
        assert SynthesiserSettings.of(settings.job) == settings
    with pytest.raises(wb.WorkbenchError, match="80 words or more"):
        SynthesiserSettings(clauses=6, length=40)
    with pytest.raises(wb.WorkbenchError, match="not there"):
        SynthesiserSettings(file=str(tmp_path / "nowhere"))


def test_ones_own_prompts_train_a_synthesiser(tmp_path: Path) -> None:
    own = tmp_path / "mine.jsonl"
    row = {
        "clauses": [{"text": "hero : tom .", "check": {"must_contain": "tom"}}],
        "answer": " the hero was tom .",
    }
    own.write_text(
        "".join(
            json.dumps({"prompt": f"write a story . hero : tom . days : {n} .", **row}) + "\n"
            for n in range(30)
        )
    )
    panel = Synthesisers(
        tmp_path / "synthesisers", [RWKV], align_steps=0, steps=2, batch_size=2, file=str(own)
    )
    panel.train()
    assert panel.wait(300) and "Finished: step 2 of 2" in panel._status.value, panel._status.value
    panel.close()


def test_a_form_has_a_box_for_a_long_text_and_chips_for_several() -> None:
    form = Form(TellSettings(**example_settings("4 clauses")))
    assert form.controls["prompt"].widget.rows == 3
    chips = form.controls["clauses"]
    assert not chips.disabled
    form.set_disabled(True)
    assert chips.disabled and form.disabled
    form.set_disabled(False)
    heard: list[object] = []
    form.observe(heard.append)
    chips.widget.value = chips.widget.value[:2]
    assert len(heard) == 1 and len(form.value.clauses) == 2
