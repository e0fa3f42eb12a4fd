"""People's own data: every format in, the same rows out; what is broken is said in one sentence with its place."""

# mypy: disable-error-code="arg-type,attr-defined"
# (wrong arguments are what is tested here, and rows of keyword arguments)

from __future__ import annotations

import csv
import json
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.tasks import Task, load_task
from workbench.tasks.readers import split_rows
from workbench.tasks.template import Template, look_up

QA = "{context}\nQuestion: {question}\nAnswer:"
ROWS = [
    {"context": f'line one\nline "two", {i}', "question": f"é{i} ?", "answer": f"answer {i}, yes"}
    for i in range(25)
]


def write(folder: Path, kind: str, rows=ROWS, name: str = "data") -> Path:
    path = folder / f"{name}.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=10)
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def texts(task: Task) -> dict[str, list[str]]:
    return {split: [e.text for e in task.examples(split)] for split in task.splits}


KINDS = ("jsonl", "csv", "tsv", "parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_examples(tmp_path, kind):
    """Quotes, newlines in fields and characters outside ASCII survive; the row is in `fields`; one file is split."""
    task = load_task(write(tmp_path, kind), template=QA)
    assert {s: len(task.examples(s)) for s in task.splits} == {"train": 19, "validation": 3, "test": 3}
    order = [row for part in split_rows(len(ROWS)).values() for row in part]
    made = [e for split in task.splits for e in task.examples(split)]
    for e, row in zip(made, (ROWS[i] for i in order), strict=True):
        assert e.text == QA.format(**row) + " " + row["answer"]
        assert e.references == (row["answer"],) and dict(e.fields) == row


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_built_again_from_its_configuration(tmp_path, kind, monkeypatch):
    """JSON and back, from another folder, the same examples; and a file that has changed is refused."""
    write(tmp_path, kind)
    monkeypatch.chdir(tmp_path)
    task = load_task(f"data.{kind}", template=QA, n=7, seed=3)
    config = json.loads(json.dumps(task.to_config()))
    monkeypatch.chdir("/")
    again = Task.from_config(config)
    assert [e.text for e in again] == [e.text for e in task] and texts(again) == texts(task)
    write(tmp_path, kind, [*ROWS[:-1], {**ROWS[-1], "answer": "answer 42, yes"}])  # as long as it was
    with pytest.raises(WorkbenchError, match=r"has changed"):
        Task.from_config(config)


def test_a_sample_is_seeded_without_replacement_and_lazy(tmp_path):
    """The same on every machine (the numbers are written down here); other seeds differ; no row comes twice."""
    task = load_task(write(tmp_path, "jsonl"), template="{question}")
    drawn = [e.prompt for e in task.examples("train", n=5, seed=1)]
    assert drawn == [f"é{i} ?" for i in (22, 10, 15, 16, 6)]
    assert drawn != [e.prompt for e in task.examples("train", n=5, seed=2)]
    assert len({e.prompt for e in task.examples("train", n=19, seed=1)}) == 19
    assert len(task.examples("train", n=999)) == len(task) == 19
    assert [e.text for e in task.examples()[2:4]] == [task[2].text, task[3].text]
    with pytest.raises(WorkbenchError, match=r"has 19 examples .* fewer than the 999"):
        load_task(tmp_path / "data.jsonl", template="{question}", n=999)


@given(st.integers(1, 300), st.integers(0, 100))
def test_one_file_is_split_by_place(count, more):
    """Each row is in one split, near 8 : 1 : 1, all splits from three rows on, and rows added later move no other."""
    parts = split_rows(count)
    assert sorted(row for part in parts.values() for row in part) == list(range(count))
    assert count < 3 or all(len(part) for part in parts.values())
    assert abs(len(parts["test"]) - count / 10) <= 1 and abs(len(parts["validation"]) - count / 10) <= 1
    longer = split_rows(count + more)
    assert all(list(part) == list(longer[split][: len(part)]) for split, part in parts.items())


def test_splits_come_from_a_dict_and_from_a_folders_file_names(tmp_path):
    """dev and valid are validation; formats may differ; a split that is not there is named with those that are."""
    write(tmp_path, "csv", ROWS[:10], "train")
    write(tmp_path, "jsonl", ROWS[10:14], "dev")
    folder = load_task(tmp_path, template=QA)
    given_ = load_task({"train": tmp_path / "train.csv", "validation": tmp_path / "dev.jsonl"}, template=QA)
    assert folder.splits == given_.splits == ("train", "validation") and texts(folder) == texts(given_)
    assert [len(folder.examples(s)) for s in folder.splits] == [10, 4]
    assert len(load_task(tmp_path, template=QA, split="validation")) == 4
    with pytest.raises(WorkbenchError, match=r"no split of .* 'test'; known are train, validation"):
        folder.examples("test")
    write(tmp_path, "jsonl", ROWS[14:], "valid")
    with pytest.raises(
        WorkbenchError, match=r"two files for the split 'validation', dev.jsonl and valid.jsonl"
    ):
        load_task(tmp_path, template=QA)


def test_a_folder_of_datasets_loads(tmp_path, monkeypatch):
    """save_to_disk's folder with splits and without, a data folder of shards; class labels come as their names."""
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = [{"text": f"review {i}", "label": i % 2} for i in range(12)]
    data = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict({"train": data, "test": data.select(range(3))}).save_to_disk(tmp_path / "dict")
    data.save_to_disk(tmp_path / "one")
    (tmp_path / "shards").mkdir()
    for i in range(2):
        data.shard(2, i, contiguous=True).to_parquet(tmp_path / "shards" / f"train-0000{i}-of-00002.parquet")
    shape = {
        "template": "review : {text} label :",
        "answer": "label",
        "metric": "accuracy",
        "choices": ["bad", "good"],
    }
    both = load_task(tmp_path / "dict", **shape)
    assert {s: len(both.examples(s)) for s in both.splits} == {"train": 12, "test": 3}
    assert both[1].text == "review : review 1 label : good" and both[1].choices == ("bad", "good")
    assert set(load_task(tmp_path / "one", **shape).splits) == {"train", "validation", "test"}
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    shards = load_task(tmp_path / "shards", **shape)
    assert sorted(e.prompt for s in shards.splits for e in shards.examples(s)) == sorted(
        e.prompt for e in both
    )
    with pytest.raises(WorkbenchError, match=r"'txt'; did you mean 'text'"):
        load_task(tmp_path / "one", **{**shape, "template": "{txt}"})


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": f"T{a}",
            "paragraphs": [
                {
                    "context": f"Überall é “{a}” " + "x" * 300_000 * (a == 1),
                    "qas": [
                        {
                            "id": f"{a}a",
                            "question": "Where ?",
                            "answers": [
                                {"text": "Rome", "answer_start": 1},
                                {"text": " in Rome", "answer_start": 0},
                            ],
                            "is_impossible": False,
                        },
                        {"id": f"{a}b", "question": "Who ?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
        for a in range(12)
    ],
}


def test_squads_own_json(tmp_path):
    """v1.1 and v2.0: all references, unanswerable questions with the word that is asked for, articles read alone."""
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps(SQUAD, ensure_ascii=False), "utf-8")
    task = load_task({"test": path}, split="test", preset="squad", unanswerable="no answer")
    assert len(task) == 24 and task.metric == "token_f1"
    first, second = task[22], task[23]
    assert first.text == "Überall é “11” \nQuestion: Where ?\nAnswer: Rome" and first.references == (
        "Rome",
        "in Rome",
    )
    assert second.answer == " no answer" and second.fields["id"] == "11b"
    assert len(task[2].prompt) > 300_000
    path.write_text(json.dumps(SQUAD)[:-9], "utf-8")
    with pytest.raises(WorkbenchError, match=r"truncated"):
        load_task(path, preset="squad")
    broken = json.loads(json.dumps(SQUAD))
    del broken["data"][3]["paragraphs"][0]["qas"][1]["question"]
    path.write_text(json.dumps(broken), "utf-8")
    with pytest.raises(
        WorkbenchError, match=r"dev-v2.0.json, article 4, paragraph 1, question 2.*'question'"
    ):
        load_task(path, preset="squad")
    assert load_task(path, preset="squad", on_bad="skip").skipped == 1
    path.write_text('{"rows": []}')
    with pytest.raises(WorkbenchError, match='no list called "data"'):
        load_task(path, preset="squad")


def test_squads_preset_reads_the_hubs_shape_too(tmp_path):
    """The Hub's rows have answers {"text": […], "answer_start": […]}; the preset is the same."""
    rows = [
        {"context": "c", "question": "q", "answers": {"text": t, "answer_start": [0] * len(t)}}
        for t in (["a", "b"], [], ["c"])
    ]
    for kind in ("jsonl", "parquet"):
        path = write(tmp_path, kind, rows, "train")
        task = load_task({"train": path}, preset="squad")
        assert [e.references for e in task] == [("a", "b"), ("unanswerable",), ("c",)]


def test_gsm8k_lines(tmp_path):
    """The worked answer is trained on; its number is what counts."""
    row = {"question": "Tom has 3 and buys 4. How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"}
    task = load_task({"train": write(tmp_path, "jsonl", [row], "train")}, preset="gsm8k")
    assert task.metric == "numeric_match" and task[0].answer == " " + row["answer"]
    assert task[0].prompt == "Question: Tom has 3 and buys 4. How many?\nAnswer:"


def test_deepmind_maths_lines(tmp_path):
    """Questions and answers in turn; signs count; a last question without its answer is a truncated file."""
    path = tmp_path / "arithmetic__add_or_sub.txt"
    path.write_text("".join(f"What is {i} - 9?\n{i - 9}\n" for i in range(30)))
    task = load_task(path, preset="deepmind-math")
    assert task[0].text == "Question: What is 0 - 9?\nAnswer: -9" and task.metric == "string_match"
    assert sum(len(task.examples(s)) for s in task.splits) == 30
    path.write_text("What is 1?\n1\nWhat is 2?\n")
    with pytest.raises(WorkbenchError, match=r"line 3: .* truncated"):
        load_task(path, preset="deepmind-math")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_large_file_is_streamed(tmp_path, kind):
    """60 MB are indexed and read at random within 4 MB of Python's memory: 12 bytes a row and a few rows."""
    dice = random.Random(0)
    row = {
        "context": "".join(dice.choices("abcdefgh ", k=20_000)),
        "question": 'a "quoted"\nquestion',
        "answer": "x",
    }
    path = write(tmp_path, kind, [row])
    block = path.read_bytes() if kind == "jsonl" else path.read_bytes().split(b"\n", 1)[1]
    with open(path, "ab") as file:
        for _ in range(60):
            file.write(block * 50)
    assert path.stat().st_size > 60_000_000
    tracemalloc.start()
    task = load_task(path, template=QA)
    for e in task.examples("train", n=50):
        assert e.answer == " x"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(task.examples(s)) for s in task.splits) == 3001
    assert peak < 4_000_000, f"{peak:,} bytes"


def test_a_large_parquet_file_is_streamed(tmp_path):
    """Neither Python nor Arrow holds the file: its rows are mapped from a copy that is already unlinked."""
    path = tmp_path / "data.parquet"
    dice = random.Random(0)
    with pq.ParquetWriter(
        path, pa.schema([(k, pa.string()) for k in ("prompt", "answer", "unused")])
    ) as writer:
        for _ in range(40):
            column = [dice.randbytes(5_000).hex() for _ in range(100)]
            writer.write_table(pa.table({"prompt": column, "answer": ["x"] * 100, "unused": column}))
    before = pa.total_allocated_bytes()
    task = load_task(path)
    assert [len(e.prompt) for e in task.examples("train", n=50)] == [10_000] * 50
    assert len(task) == 3200 and set(task[0].fields) == {"prompt", "answer"}
    assert pa.total_allocated_bytes() - before < 4_000_000 < path.stat().st_size


GOOD = b'{"prompt": "p", "answer": "a"}\n'
BAD_LINES = {
    "no field": (b'{"promt": "p", "answer": "a"}\n', "'prompt'; did you mean 'promt'"),
    "no answer": (b'{"prompt": "p", "answr": "a"}\n', "'answer'; did you mean 'answr'"),
    "null": (b'{"prompt": null, "answer": "a"}\n', "'prompt' is empty"),
    "empty answer": (b'{"prompt": "p", "answer": " "}\n', "'answer' has no answer"),
    "list": (b'{"prompt": ["p"], "answer": "a"}\n', "'prompt' is a list"),
    "not an object": (b"[1, 2]\n", "not an object"),
    "not JSON": (b"{prompt: p}\n", "not JSON"),
    "not UTF-8": ('{"prompt": "é", "answer": "a"}\n'.encode("latin-1"), "not UTF-8"),
    "truncated": (b'{"prompt": "p", "ans', "truncated"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_row_stops_with_file_and_line_or_is_skipped_and_counted(tmp_path, case):
    """At load, whatever is wrong with it; the good rows around it stay usable with on_bad="skip"."""
    line, sentence = BAD_LINES[case]
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD + GOOD + line)
    with pytest.raises(WorkbenchError, match=r"data.jsonl, line 5: ") as error:
        load_task(path)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    task = load_task(path, on_bad="skip")
    assert task.skipped == task.describe()["skipped"] == 1
    assert [e.text for s in task.splits for e in task.examples(s)] == ["p a"] * 3
    path.write_bytes(line)
    with pytest.raises(WorkbenchError, match=r"none of the 1 rows can be used"):
        load_task(path, on_bad="skip")


BAD_CSV = {
    "too few": (b"p\n", "1 fields where line 1 names 2"),
    "bad quotes": (b'"p" x,a\n', "not well-formed"),
    "open quote": (b'"p,a\n', "never ends"),
    "not UTF-8": ("é,a\n".encode("latin-1"), "not UTF-8"),
    "empty answer": (b"p,\n", "'answer' has no answer"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_csv_row_stops_at_its_first_line(tmp_path, case):
    """Lines are counted as an editor counts them, through quoted newlines and empty lines."""
    line, sentence = BAD_CSV[case]
    path = tmp_path / "data.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,answer\r\n"p\nq",a\r\n\r\np,a\r\np,a\n' + line)
    with pytest.raises(WorkbenchError, match=r"data.csv, line 7: ") as error:
        load_task(path)
    assert sentence in str(error.value)
    task = load_task(path, on_bad="skip")
    assert task.skipped == 1
    assert sorted(e.text for s in task.splits for e in task.examples(s)) == ["p\nq a", "p a", "p a"]


def test_an_open_quote_takes_no_good_rows_with_it(tmp_path):
    """A quote that never closes, or closes in a later row, would swallow what follows; one row is bad, and lines
    are still counted right after it. As ordinary text (quotes=False) it is not bad at all."""
    path = tmp_path / "data.tsv"
    path.write_text('prompt\tanswer\np\t1\n"p\t2\np\t3\n"p"\t4\np\t5\n\t\t\n')
    with pytest.raises(WorkbenchError, match=r"data.tsv, line 3: it is not well-formed"):
        load_task(path)
    path.write_text('prompt\tanswer\np\t1\n"p\t2\np\t3\n"p"\t4\np\t5\n')
    task = load_task(path, on_bad="skip")
    assert task.skipped == 1 and sorted(
        e.references[0] for s in task.splits for e in task.examples(s)
    ) == list("1345")
    rows = next(iter(task.source.tables.values()))
    assert [rows.where(i) for i in range(4)] == [f"data.tsv, line {n}" for n in (2, 4, 5, 6)]
    assert sum(len(load_task(path, quotes=False).examples(s)) for s in task.splits) == 5


def test_bad_parquet_rows_are_named_and_skipped(tmp_path):
    """The row's number is the file's, before and after what was skipped."""
    rows = [{"prompt": "p" if i % 7 else None, "answer": str(i)} for i in range(1, 3000)]
    path = write(tmp_path, "parquet", rows)
    with pytest.raises(WorkbenchError, match=r"data.parquet, row 7: the field 'prompt' is empty"):
        load_task(path)
    task = load_task(path, on_bad="skip")
    kept = sorted(int(e.answer) for s in task.splits for e in task.examples(s))
    assert task.skipped == 428 and kept == [i for i in range(1, 3000) if i % 7]


BROKEN = {
    "empty.jsonl": (b"", "is empty"),
    "blank.jsonl": (b"\n \n", "has no rows"),
    "utf16.csv": ("prompt,answer\np,a\n".encode("utf-16"), "not UTF-8"),
    "binary.jsonl": (b"\x00\x01\x02", "not UTF-8"),
    "header.csv": (b"prompt,answer\n", "has no rows"),
    "twice.csv": (b"prompt,prompt\np,a\n", "'prompt' twice"),
    "text.parquet": (b"hello, I am no Parquet file", "no Parquet file"),
    "array.json": (b'[\n{"prompt": "p", "answer": "a"}\n]\n', "one JSON value over many lines"),
    "table.xlsx": (b"PK", "files that can be read end in"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_sentence(tmp_path, name):
    """Empty, of another encoding, of another format: WorkbenchError with the file's name, whatever the library said."""
    content, sentence = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WorkbenchError) as error:
        load_task(tmp_path / name)
    assert sentence in str(error.value) and name in str(error.value) and "\n" not in str(error.value)
    assert error.value.__cause__ is None and (
        error.value.__suppress_context__ or error.value.__context__ is None
    )


def test_a_truncated_parquet_file_is_one_sentence(tmp_path):
    path = write(tmp_path, "parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WorkbenchError, match=r"truncated"):
        load_task(path)


def test_a_row_that_changes_after_the_file_was_loaded_is_said(tmp_path):
    """The file is read again at each look, and its index would point into the middle of rows."""
    path = write(tmp_path, "jsonl")
    task = load_task(path, template=QA)
    path.write_text(path.read_text("utf-8").replace("answer 2", "answer 33"), "utf-8")
    with pytest.raises(WorkbenchError, match=r"changed since"):
        task[18]


def test_names_that_do_not_exist_are_answered_with_the_nearest(tmp_path):
    """Files, presets, metrics, options, splits, ways to treat bad rows, tasks."""
    path = write(tmp_path, "jsonl")
    for arguments, sentence in [
        ({"name": tmp_path / "dta.jsonl"}, "did you mean data.jsonl"),
        ({"name": path, "preset": "sqad"}, "did you mean 'squad'"),
        ({"name": path, "metric": "exact"}, "did you mean 'exact_match'"),
        ({"name": path, "chioces": ["a"]}, "did you mean 'choices'"),
        ({"name": path, "split": "tset"}, "did you mean 'test'"),
        ({"name": path, "on_bad": "skp"}, "did you mean 'skip'"),
        ({"name": path, "metric": "accuracy"}, "needs the label words"),
        ({"name": path, "template": "{question:>9}"}, "has a format"),
        ({"name": path, "template": "{question"}, "cannot be read"),
        ({"name": path, "template": "{}"}, "without a field's name"),
        ({"name": path, "answer": "answer", "choices": ["yes", "no"]}, "none of the choices yes, no"),
        ({"name": {}}, "dict of files is empty"),
        ({"name": tmp_path}, "cannot be loaded"),
        ({"name": "somebody/nothing-like-this"}, "tried the Hub"),
    ]:
        options = {"template": QA, **arguments}
        if arguments["name"] == tmp_path:
            path.unlink()
        with pytest.raises(WorkbenchError) as error:
            load_task(options.pop("name"), **options)
        assert sentence in str(error.value), str(error.value)


def test_templates_reach_into_rows_and_keep_braces():
    """Dotted paths, list elements, lists of records; doubled braces are text; values are written plainly."""
    row = {"a": {"b": [{"c": "x"}, {"c": "y"}]}, "n": 3, "ok": True, "dotted.key": "d"}
    assert Template("{a.b.0.c} {{n}} {n} {ok} {dotted.key}")(row) == "x {n} 3 True d"
    assert look_up(row, "a.b.c") == ["x", "y"]
