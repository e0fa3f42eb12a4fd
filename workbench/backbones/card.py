"""The model card of a bundled backbone: measured on the finished weights, written as card.json and README.md.

`write_card` measures; `render` turns a card into the README. No number is typed by hand: text here states
rules, and every figure comes from the run's own files or from a measurement made here.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from workbench.backbones import corpus
from workbench.backbones.score import (
    CLAUSES,
    DISTANCES,
    StoryScores,
    family_chance,
    map_cells,
    score_family,
    score_stories,
)
from workbench.tasks import world
from workbench.tasks.world import mixture
from workbench.tasks.world.relations import HELD_OUT
from workbench.tasks.world.sample import Split

SHOTS = 4
MEASURES = {
    "chance": "chance",
    "zero_shot": "zero-shot",
    "k_shot": "k-shot",
    "zero_shot_test": "zero-shot, held-out wording",
    "k_shot_test": "k-shot, held-out wording",
}
"""What is measured of each family, and its name in the README."""
NOT_QUESTIONS = ("stories", "running")


def load_finished(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a finished backbone: weights as they are stored, arithmetic in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def family_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, samples: int, seed: int = 0
) -> dict[str, float]:
    """Share of new samples of a family answered exactly, without and (where it has them) with worked examples.

    In the wording that training knows (the validation split), and as "zero_shot_test" and "k_shot_test" in held-out
    wording and, where a rule decides, of held-out entities. "chance" is what a guess would get.
    """
    result = {"chance": round(family_chance(name, "validation", samples, seed), 4)}
    splits: tuple[tuple[Split, str], ...] = (("validation", ""), ("test", "_test"))
    for split, suffix in splits:
        result[f"zero_shot{suffix}"] = score_family(model, tokenizer, name, split, samples, seed=seed)
        if world.family(name).group not in NOT_QUESTIONS and name != "story-due":
            result[f"k_shot{suffix}"] = score_family(model, tokenizer, name, split, samples, SHOTS, seed)
    return result


def story_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cases: int,
    split: Split = "train",
    seed: int = 0,
) -> StoryScores:
    """The stories behind the map: about `cases` clauses for each number of clauses, none of them read in training.

    They are told in the sentences of the train split, so that the map shows what is forgotten and not which wording
    was never learnt; `split="test"` tells them in held-out sentences.
    """
    return score_stories(model, tokenizer, map_cells(cases), split, seed)


def write_card(folder: Path, samples: int = 100, cases: int = 1600) -> dict[str, Any]:
    """Measures the finished backbone of a run folder and writes card.json and README.md beside its weights."""
    begun = time.perf_counter()
    config = json.loads((folder / "config.json").read_text())
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    model, tokenizer = load_finished(folder / "backbone")
    stories = story_scores(model, tokenizer, cases)
    held_out = story_scores(model, tokenizer, cases // 4, "test")
    accuracy: dict[str, dict[str, Any]] = {}
    for name, family in world.families().items():
        if family.group in NOT_QUESTIONS and name != "story-due":
            continue
        accuracy[name] = {"group": family.group, "held_out": name in HELD_OUT} | family_accuracy(
            model, tokenizer, name, samples
        )
    tail = steps[-max(1, len(steps) // 50) :]
    card = {
        "name": config["backbone"],
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": config,
        "mixture": mixture_facts(),
        "seed": config["seed"],
        "steps": steps[-1]["index"],
        "tokens": steps[-1]["tokens"],
        "seconds": round(steps[-1]["seconds"]),
        "loss": round(fmean(s["loss"] for s in tail), 4),
        "nats": round(fmean(s["nats"] for s in tail), 4),
        "history": [
            {"step": s["index"], "tokens": s["tokens"], "learning_rate": s["learning_rate"]} | s["evaluation"]
            for s in steps
            if s["evaluation"]
        ],
        "shots": SHOTS,
        "samples": samples,
        "accuracy": accuracy,
        "accuracy_by_group": group_means(accuracy),
        "cases": cases,
        "forgetting": stories.forgetting(),
        "forgetting_of_two": stories.forgetting(fitting=2),
        "met": round(stories.share(), 4),
        "met_in_held_out_sentences": round(held_out.share(), 4),
        "chance": round(stories.chance(), 4),
        "loss_by_position": stories.loss_by_position(),
        "card_seconds": round(time.perf_counter() - begun),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    (folder / "backbone" / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    (folder / "backbone" / "README.md").write_text(render(card))
    return card


def mixture_facts() -> dict[str, Any]:
    """What the backbones read: shares of words by source, in both cycles, and weights in the loss."""
    return {
        "shares": dict(mixture.SHARES),
        "later shares": dict(mixture.LATER_SHARES),
        "prompt repeated in mid-story": mixture.REPEATED,
        "most shots": mixture.MOST_SHOTS,
        "most earlier turns of reading": mixture.MOST_TURNS,
        "weights": {
            "prompt": corpus.PROMPT / corpus.TEXT,
            "text": 1,
            "answer": corpus.ANSWER / corpus.TEXT,
            "answer in the second cycle": corpus.ANSWER_LATER / corpus.TEXT,
            "due word": corpus.DUE / corpus.TEXT,
            "due word in the opening stage": corpus.DUE_AT_FIRST / corpus.TEXT,
        },
    }


def group_means(accuracy: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the families of each group; relations that pretraining never asked stand apart."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in accuracy.values():
        group = entry["group"] + (", never asked in pretraining" if entry["held_out"] else "")
        groups.setdefault(group, []).append(entry)
    return {
        group: {
            key: round(fmean(e[key] for e in entries if key in e), 4)
            for key in MEASURES
            if any(key in e for e in entries)
        }
        for group, entries in groups.items()
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{source} {_percent(share)}" for source, share in shares.items())


def forgetting_table(forgetting: Sequence[Sequence[float]]) -> str:
    """The map as a table: a row for each number of clauses, a column for each distance."""
    cells = {(int(c), int(d)): (share, int(n)) for c, d, share, n in forgetting}
    rows = []
    for clauses in CLAUSES:
        row: list[object] = [clauses]
        for distance in DISTANCES:
            share, n = cells.get((clauses, distance), (None, 0))
            row.append(f"{_percent(share)} ({n})" if n else "")
        rows.append(row)
    return _table(["clauses", *(f"{d} tokens" for d in DISTANCES)], rows)


def render(card: Mapping[str, Any]) -> str:
    """The README of a card."""
    recipe, weights = card["recipe"], card["mixture"]["weights"]
    history = card["history"]
    marks = [key for key in history[-1] if key not in ("step", "tokens", "learning_rate")] if history else []
    every = max(1, len(history) // 12)
    shown = history[::-1][::every][::-1]
    accuracy = [
        (
            name,
            entry["group"] + (" (held out)" if entry["held_out"] else ""),
            *(_percent(entry.get(key)) for key in MEASURES),
        )
        for name, entry in card["accuracy"].items()
    ]
    edges = ", ".join(f"{name}: up to {end}" for name, end in DISTANCES.items())
    return f"""---
license: apache-2.0
library_name: transformers
---
# {card["name"]}

A {card["architecture"]} of {card["parameters"]:,} parameters, trained from nothing on the small world of this
workbench and on no other text. `workbench pretrain` wrote this page from `card.json`, which it measured on the
stored weights (bfloat16).

    import workbench as wb
    backbone = wb.load_backbone("{card["name"]}")

## Training

    workbench pretrain --backbone {card["name"]}

{card["tokens"]:,} tokens in {card["steps"]:,} steps, {card["seconds"]:,} seconds, seed {card["seed"]}; no document was read twice.
Loss at the end {card["loss"]} (weighted as it was trained), {card["nats"]} nats a token unweighted.
The same mixture, order of documents and tokenizer serve every bundled backbone.

{_table(["setting", "value"], list(recipe.items()))}

Mixture, by share of words: {_shares(card["mixture"]["shares"])}.
The rate falls to zero at step {recipe["first_cycle"]:,}, rises again, and falls to zero at the end; in that second cycle the
mixture is {_shares(card["mixture"]["later shares"])}.
Stories have 1 to 16 clauses and 20 to 800 words; in {_percent(card["mixture"]["prompt repeated in mid-story"])} of them
the prompt is read again in mid-story. What is not natural about this training, and is the same for every bundled
backbone:

- weights in the loss, as multiples of a word of running text: {", ".join(f"{k} {v:g}" for k, v in weights.items())};
- the opening stage: of the first {recipe["opening_documents"]:,} documents only stories of at most {recipe["opening_words"]}
  words are read, {recipe["opening_batch"]:,} tokens a step;
- until document {recipe["middle_documents"]:,} stories have at most {recipe["middle_words"]} words; from there on nothing is held back.

## While it trained

Held-out stories and relations, measured every {recipe["evaluate_every"]} steps (excerpt; all in `card.json`):

{_table(["step", "tokens", *marks], [[h["step"], h["tokens"], *(h[m] for m in marks)] for h in shown])}

## Forgetting

Share of clauses met (number of cases), by the number of clauses in the prompt and the tokens from the end of the
prompt to the word that falls due. New stories in sentences that training knows, read under teacher forcing; a clause
is met when the due word is the most likely of the whole vocabulary. Distances are bins ({edges}).
Over all of them {_percent(card["met"])} are met, in sentences held out of training {_percent(card["met_in_held_out_sentences"])};
guessing among the prompt's own values that would fit meets {_percent(card["chance"])}.

{forgetting_table(card["forgetting"])}

The longer a story goes on, the more of the prompt's values have been told, and the easier it is to guess among those
left. So the same again, only where exactly two of the prompt's own values still fit, and a guess meets half in every
cell; down a column is load, along a row is distance:

{forgetting_table(card["forgetting_of_two"])}

Nats a token on the rest of the same stories (words that are not due), by position after the prompt:

{_table([f"{int(d)} tokens" for d, _, _ in card["loss_by_position"]], [[n for _, n, _ in card["loss_by_position"]]])}

## Accuracy

Exact answers to {card["samples"]} new questions a family, greedy, zero-shot and with {card["shots"]} worked examples:
in the wording that training knows, and in wording held out of it (and, where a rule decides, about entities held out
of it). Chance is a guess that knows the sort of answer:
one of the label words, in reading one of the passage's words of the answer's kind, elsewhere the most frequent answer.

{_table(["group", *MEASURES.values()], [(g, *(_percent(m.get(k)) for k in MEASURES)) for g, m in card["accuracy_by_group"].items()])}

{_table(["family", "group", *MEASURES.values()], accuracy)}

Versions: {", ".join(f"{k} {v}" for k, v in card["versions"].items())}.
"""
