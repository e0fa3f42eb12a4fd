"""Protects what is seen of forgetting: kept texts are those that were followed, marks stand where clauses fell due, maps say their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.forgetting import Forgetting, follow_forgetting, forgetting
from workbench.analysis.forgetting_kept import keep, load
from workbench.analysis.weight_changes import change_gram, change_table, coordinates, prompt_rows, spectra
from workbench.methods.generate import GenerateConfig
from workbench.methods.prompt_gradient import true_gradient
from workbench.tasks.checks import MustContain
from workbench.tasks.clauses import Clause, ClausePrompt, from_story
from workbench.tests import zoo
from workbench.views.change_map import ChangeMap, MappedChanges
from workbench.views.check import check_figure
from workbench.views.clause_map import ClauseMap
from workbench.views.influence_curves import InfluenceCurves
from workbench.views.weight_change import WeightChange
from workbench.views.written_text import WrittenText, pieces

PROMPT = from_story("write a story . hero : tom . pet : fox not owl . door : red . begin :")
TEXT = " the hero of this tale was tom . the faithful pet was the owl . and the"
FEW = GenerateConfig(max_new_tokens=12)


@pytest.fixture(scope="module")
def backbone() -> wb.Backbone:
    return wb.load_backbone("tiny-rwkv", device="cpu")


@pytest.fixture(scope="module")
def error(backbone: wb.Backbone) -> wb.SyntheticGradient:
    return wb.SyntheticGradient(backbone, source="error")


@pytest.fixture(scope="module")
def seen(backbone: wb.Backbone) -> Forgetting:
    found = forgetting(backbone, PROMPT, continuation=TEXT)
    assert found.met == (True, False, None), "one of each, so that marks can be wrong"
    return found


def same(one: Forgetting, other: Forgetting) -> None:
    assert (one.ids, one.text, one.tokens) == (other.ids, other.text, other.tokens)
    assert one.due.equals(other.due)
    for name in one.values:
        np.testing.assert_allclose(one.values[name], other.values[name], atol=1e-4)


def test_a_kept_text_is_the_one_that_was_followed(backbone: wb.Backbone, tmp_path: Path) -> None:
    """Protects every figure of the panel, which reads files: the same numbers, text and verdicts as `forgetting` gives."""
    path = tmp_path / "text.jsonl"
    steps = list(
        keep(path, PROMPT, follow_forgetting(backbone, PROMPT, continuation=TEXT), {"state_cosine": range(4)})
    )
    kept = load(path)
    assert kept is not None and kept.done and kept.likely[3] == steps[3].likely
    whole = forgetting(backbone, PROMPT, continuation=TEXT, measures=[*steps[0].values, "met"])
    same(kept.forgetting, whole)
    assert kept.forgetting.matrix("state_cosine").shape == (4, len(steps))

    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:9]) + lines[9][:20])  # while the ninth step is written
    part = load(path)
    assert part is not None and not part.done and len(part.forgetting.ids) == 8
    assert part.forgetting.text == TEXT[: len(part.forgetting.text)] and part.forgetting.met[1] is None
    path.write_text(lines[0])
    assert load(path) is None and load(tmp_path / "nowhere.jsonl") is None
    path.write_text("".join(lines[:2]).replace('"id"', '"no"'))
    with pytest.raises(wb.WorkbenchError, match="damaged"):
        load(path)


def test_a_text_goes_on_from_another_where_the_prompt_is_read_again(
    backbone: wb.Backbone, tmp_path: Path
) -> None:
    """Protects the slider: up to there the plain text, from there what is written behind the prompt's second reading."""
    first, second = tmp_path / "00.jsonl", tmp_path / "01.jsonl"
    plain = [s.token_id for s in keep(first, PROMPT, follow_forgetting(backbone, PROMPT, config=FEW))]
    on = follow_forgetting(backbone, PROMPT, config=FEW, written=plain[:5], again=True)
    list(keep(second, PROMPT, on, after=first, again_at=5))
    kept = load(second)
    assert kept is not None
    measures = [name for name in kept.forgetting.values if name != "met"]
    same(kept.forgetting, forgetting(backbone, PROMPT, config=FEW, again_at=5, measures=[*measures, "met"]))
    assert kept.forgetting.again_at == 5 and kept.forgetting.ids[:5] == tuple(plain[:5])
    with pytest.raises(wb.WorkbenchError, match="has 12 steps"):
        list(keep(tmp_path / "02.jsonl", PROMPT, on, after=first, again_at=40))


def test_a_text_that_cannot_be_followed_leaves_the_file_that_was_there(
    backbone: wb.Backbone, tmp_path: Path
) -> None:
    path = tmp_path / "00.jsonl"
    list(keep(path, PROMPT, follow_forgetting(backbone, PROMPT, config=FEW)))
    before = path.read_bytes()

    def fails() -> None:
        raise wb.WorkbenchError("no")
        yield

    with pytest.raises(wb.WorkbenchError, match="no"):
        list(keep(path, PROMPT, fails()))  # type: ignore[arg-type]
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_stand_where_clauses_fell_due(seen: Forgetting, theme: str) -> None:
    """Met and missed by sign and by colour, on the clause's own row at the due word's own step."""
    figure = ClauseMap({"plain": seen, "other": seen}, theme=theme).figure()  # type: ignore[arg-type]
    assert check_figure(figure) == []
    heat, met, missed = figure.data[:3]
    assert (heat.type, met.name, missed.name) == ("heatmap", "met", "missed")
    due = seen.due.set_index("clause")["step"]
    assert ([*met.x], [*met.y], [*met.text]) == ([due[1]], [0], ["✓"])
    assert ([*missed.x], [*missed.y], [*missed.text]) == ([due[2]], [1], ["✗"])
    assert met.marker.color != missed.marker.color and met.marker.symbol != missed.marker.symbol
    assert seen.tokens[int(due[1]) - 1].strip() == "tom" and seen.tokens[int(due[2]) - 1].strip() == "owl"
    assert [label.split()[-1] for label in figure.layout.yaxis.ticktext] == ["✓", "✗", "·"]
    shaded = np.log10(np.clip(seen.values["clause_influence"].T, 1e-3, 10))
    np.testing.assert_allclose(np.asarray(heat.z, float), shaded)


def test_every_measure_can_be_mapped_and_fills_to_its_end(seen: Forgetting, backbone: wb.Backbone) -> None:
    """Signed gains have two colours; of layers the due words have a row of their own; the axis does not move as it fills."""
    full = forgetting(
        backbone,
        PROMPT,
        continuation=TEXT,
        measures=["clause_gain", "state_cosine", "clause_state", "influence"],
    )
    for measure, rows in (("clause_gain", 3), ("state_cosine", 5), ("clause_state", 3)):
        view = ClauseMap(full, measure, steps=80)
        figure = view.figure()
        assert check_figure(figure) == [] and np.asarray(figure.data[0].z).shape == (rows, len(full.ids))
        assert tuple(figure.layout.xaxis.range) == (0.5, 80.5)
        table = view.data()
        assert {"met", measure} == set(table["measure"]) and (table["measure"] == "met").sum() == 2
    assert full.met == (True, False, None)
    held = ClauseMap(full, "clause_state").figure()  # its own range, of the logarithm
    assert "What the state holds" in held.layout.title.text and "logarithmic" in held.layout.title.text
    assert (held.layout.coloraxis.cmin, held.layout.coloraxis.cmax) == (-3, -1)
    shaded = np.log10(np.clip(full.values["clause_state"].T, 1e-3, 1e-1))
    np.testing.assert_allclose(np.asarray(held.data[0].z, float), shaded)
    with pytest.raises(wb.WorkbenchError, match="measure"):
        ClauseMap(full, "no").figure()


def test_curves_are_those_of_the_texts_on_the_same_axes(seen: Forgetting, backbone: wb.Backbone) -> None:
    state = forgetting(backbone, PROMPT, continuation=TEXT, measures=["influence", "state_cosine"])
    again = forgetting(backbone, PROMPT, continuation=TEXT, measures=["influence"], again_at=6)
    view = InfluenceCurves({"plain": state, "again": again})
    table = view.data()
    np.testing.assert_array_equal(table[table["text"] == "plain"]["influence"], state.values["influence"])
    own = table[table["text"] == "plain"]
    np.testing.assert_allclose(own["state_cosine"], state.values["state_cosine"].mean(1))
    assert table[table["text"] == "again"]["state_cosine"].isna().all()
    figure = view.figure()
    assert check_figure(figure) == []
    assert {trace.xaxis for trace in figure.data} == {"x", "x2"} and figure.layout.shapes[0].x0 == 6.5
    alone = InfluenceCurves(seen).figure()
    assert {trace.yaxis for trace in alone.data} == {"y"}, "no state, no panel for it"


def test_pieces_are_the_text_and_due_words_are_marked(seen: Forgetting) -> None:
    assert "".join(pieces(seen)) == seen.text == TEXT
    view = WrittenText({"<plain>": seen})
    table = view.data()
    due = table.dropna(subset=["clause"])
    assert [*due["written"].str.strip()] == ["tom", "owl"] and [*due["met"]] == [True, False]
    np.testing.assert_allclose(table["probability"], np.exp(seen.values["log_probability"]))
    html = view.table_html()
    assert "&lt;plain&gt;" in html and "tom<sup>1✓</sup>" in html and "owl<sup>2✗</sup>" in html
    assert html.count("wb-met") == 2 and html.count("wb-due wb-missed'") == 1  # once in the style
    assert "tom [1 ✓]" in view.shown()["text"][0] and "1 met ✓, 1 missed ✗, 1 not due ·" in html


def test_a_clause_of_ones_own_is_marked_as_well(backbone: wb.Backbone) -> None:
    """Own checks decide at a character, of which the token must be found."""
    prompt = ClausePrompt("write of the cat .", (Clause("cat", MustContain("dog")),))
    found = forgetting(backbone, prompt, continuation=" the bird saw the dog .")
    view = WrittenText(found)
    assert [*view.data().dropna(subset=["clause"])["written"]] == [" dog"] and found.met == (True,)


# --- the change of the weights


def test_the_table_of_a_change_is_that_of_the_matrices_written_out(
    backbone: wb.Backbone, error: wb.SyntheticGradient
) -> None:
    """Norm, share of the matrix, cosine and singular values against dense matrices and numpy."""
    rows = prompt_rows(error, [PROMPT.prompt, "write a story . hero : sam . begin :"])
    table, values = change_table(error, rows), spectra(error, rows)
    made, true = error.changes(rows), true_gradient(error.view, error.writers, rows)
    assert len(table) == 2 * len(error.writers) and set(table["layer"]) == set(range(4))
    for writer in error.writers[:3]:
        own = table[(table["layer"] == writer.layer) & (table["matrix"] == writer.within)].set_index("prompt")
        for row in (0, 1):
            dense = made[writer.name].dense()[row].detach().double().numpy()
            other = true[writer.name].dense()[row].double().numpy()
            weight = backbone.model.get_submodule(writer.name).weight.detach().double().numpy()
            size = np.linalg.norm(dense)
            assert own.loc[row, "norm"] == pytest.approx(size, rel=1e-3)
            assert own.loc[row, "relative"] == pytest.approx(size / np.linalg.norm(weight), rel=1e-3)
            cosine = (dense * other).sum() / size / np.linalg.norm(other)
            assert own.loc[row, "cosine"] == pytest.approx(cosine, abs=1e-3)
            line = values[
                (values["layer"] == writer.layer)
                & (values["matrix"] == writer.within)
                & (values["prompt"] == row)
            ]
            wanted = np.linalg.svd(dense, compute_uv=False)[: len(line)]
            np.testing.assert_allclose(line["value"], wanted, rtol=1e-2, atol=1e-3 * wanted[0])
    figure = WeightChange(table[table["prompt"] == 0], values[values["prompt"] == 0], "error").figure()
    assert check_figure(figure) == []
    data = WeightChange(table, values).data()
    assert data["cosine"].mean() == pytest.approx(table["cosine"].mean())


def test_distances_of_coordinates_are_those_of_the_changes(
    error: wb.SyntheticGradient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the map, and the number beside it: against changes written out whole; in small pieces as in one."""
    prompts = [
        f"write a story . hero : {name} . pet : fox . begin :" for name in ("tom", "sam", "ben", "tom", "ann")
    ]
    rows = prompt_rows(error, prompts)
    whole = (
        torch.cat([c.dense().flatten(1) for c in error.changes(rows).values()], 1).detach().double().numpy()
    )
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    gram = change_gram(error, rows)
    np.testing.assert_allclose(gram, whole @ whole.T, atol=1e-4)
    places = coordinates(gram)
    for i in range(5):
        for j in range(5):
            apart = np.linalg.norm(whole[i] - whole[j])
            assert np.linalg.norm(places[i] - places[j]) == pytest.approx(apart, abs=1e-3)
    assert np.linalg.norm(places[0] - places[3]) < 1e-3 < np.linalg.norm(places[0] - places[1])
    monkeypatch.setattr("workbench.analysis.weight_changes._NUMBERS", 4000)
    monkeypatch.setattr("workbench.analysis.weight_changes._AT_ONCE", 2)
    np.testing.assert_allclose(change_gram(error, rows), gram, atol=1e-4)
    with pytest.raises(wb.WorkbenchError, match="in the same way"):
        coordinates(np.ones((4, 4)))
    with pytest.raises(wb.WorkbenchError, match="no prompts"):
        prompt_rows(error, [])


def test_the_map_says_whether_neighbours_are_alike() -> None:
    """Groups that are apart are found, and those that are not are no better than shuffled: the picture's own number."""
    dice = np.random.default_rng(0)
    values = np.array(["calm", "sad", "gay", "wild"])[np.arange(120) % 4]
    centres = dice.normal(size=(4, 12)) * 4
    apart = centres[np.arange(120) % 4] + dice.normal(size=(120, 12))
    prompts = tuple(f"prompt {i}" for i in range(120))
    good = MappedChanges(apart, tuple(values), prompts, "ending", "error")
    assert good.purity["value"] > 0.95 and good.purity["chance_high"] < 0.4
    blind = MappedChanges(apart, tuple(dice.permutation(values)), prompts, "ending", "error")
    assert blind.purity["low"] < blind.purity["chance_high"]
    for theme in ("light", "dark"):
        view = ChangeMap(good, theme)  # type: ignore[arg-type]
        figure = view.figure()
        assert check_figure(figure) == []
        assert (
            f"{good.purity['value']:.0%}" in figure.layout.title.text
            and "shuffled" in figure.layout.title.text
        )
        assert sum(len(trace.x) for trace in figure.data) == 120
    rare = MappedChanges(apart, (*values[:-1], "once"), prompts, "ending", "error")
    assert rare.purity["texts"] == 119, "a value of one prompt has no neighbours to share"


def test_a_small_backbone_of_another_kind_is_served() -> None:
    """Influence without a state, and changes without one: an attention model."""
    llama = zoo.backbone("llama")
    found = forgetting(llama, "a b . c d .", continuation=" a b c")
    assert check_figure(ClauseMap(found).figure()) == []
    method = wb.SyntheticGradient(llama, source="error")
    assert (change_table(method, prompt_rows(method, ["a b c d ."]))["norm"] > 0).all()


def test_a_prompt_that_a_change_cannot_be_made_of_is_refused() -> None:
    """One longer than the context, in one sentence with the lengths; a recurrence has no such limit."""
    method = wb.SyntheticGradient(zoo.backbone("gpt2"), source="error")
    with pytest.raises(wb.WorkbenchError, match=r"^1537 tokens are needed, but small-gpt2 reads 256"):
        prompt_rows(method, ["a b c", "a b c " * 256])
    assert len(change_table(method, prompt_rows(method, ["a" * 255]))) == len(method.writers)
    rwkv = wb.SyntheticGradient(zoo.backbone("rwkv"), source="error", layers=(0,))
    assert len(prompt_rows(rwkv, ["a b c " * 256]).ids[0]) == 1537
