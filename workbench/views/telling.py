"""What the panel of notebook 04 asks for, as texts in a folder and back, and the thread that has them written. Owns no widget.

    runs/forgetting/0001-tiny-rwkv/asked.json       what the form said
                                  /00.json          a text: plain, or with ProSG, or with the prompt read again behind a token
                                  /00.jsonl         its tokens and numbers, written while the model writes (`forgetting_kept.py`)

Texts of one folder are written side by side, a token of each in turn. One that was interrupted is written anew: the same
prompt and seed give the same text.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from workbench.analysis.forgetting_kept import Kept, keep, load
from workbench.data import DATA
from workbench.errors import WorkbenchError
from workbench.tasks.clauses import Clause, ClausePrompt, from_story, guess
from workbench.tasks.world.stories import make_story
from workbench.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.analysis.forgetting import ForgettingStep
    from workbench.backbones.backbone import Backbone
    from workbench.methods.synthetic_gradient import SyntheticGradient

ASKED = "asked.json"
SYNTHESISERS = DATA / "synthesisers"
PLAIN = "plain"

#: What ProSG can come from beside synthesisers that were trained: the name of a source, and what a menu calls it.
UNTRAINED = {"error": "error (nothing trained)", "gradient": "true gradient"}
KIND = "synthetic-gradient"


@dataclass(frozen=True)
class Example:
    """A prompt of the small world to begin with: the `number`-th story of so many clauses."""

    clauses: int
    number: int

    @property
    def prompt(self) -> str:
        """Made by the world's generator, from sentences that no backbone was trained on."""
        return make_story(Random(f"notebook 04: {self.number}"), self.clauses, split="test").prompt


#: Prompts to begin with. Of the last the plain bundled RWKV meets no clause that falls due (a test holds that).
EXAMPLES = {
    "4 clauses": Example(4, 0),
    "8 clauses": Example(8, 0),
    "12 clauses": Example(12, 0),
    "a prompt that is forgotten": Example(6, 7),
}


def clauses_of(prompt: str, texts: Sequence[str]) -> ClausePrompt:
    """A prompt with the clauses of these texts, each with the check that a guess at the prompt's own clauses finds for it.

    Raises:
        WorkbenchError: an empty prompt, no clauses, or one that does not occur in it.
    """
    if not prompt.strip():
        raise WorkbenchError("the prompt is empty; write what is asked for")
    known = {clause.text: clause for clause in guess(prompt).clauses}
    return ClausePrompt(prompt, tuple(known.get(text, Clause(text)) for text in texts))


def guessed(prompt: str) -> tuple[str, ...]:
    """The texts of the clauses that are guessed in a prompt; none in an empty one, or one whose clauses cannot be told."""
    try:
        return tuple(clause.text for clause in guess(prompt).clauses) if prompt.strip() else ()
    except WorkbenchError:
        return ()


@dataclass(frozen=True)
class TellSettings:
    """What the form asks for."""

    backbone: str = field(default="tiny-rwkv", metadata={"label": "Backbone"})
    """A bundled name, a folder, or a Hub id. Of attention backbones influence is measured; they have no state."""
    example: str = field(default="8 clauses", metadata={"label": "Example", "choices": tuple(EXAMPLES)})
    """A prompt to begin with, put into the box."""
    tokens: int = field(default=150, metadata={"label": "Tokens to write", "min": 2, "max": 2000})
    """The most tokens that are written."""
    temperature: float = field(default=0.0, metadata={"min": 0.0})
    """0: the likeliest token each time; above 0 it is drawn, and rare words come more often the higher it is."""
    seed: int = field(default=0, metadata={"min": 0})
    """Of the draw of tokens, where the temperature is above 0."""
    prompt: str = field(default="", metadata={"lines": 3})
    """What is asked for, in your own words or in the small world's."""
    clauses: tuple[str, ...] = field(default=(), metadata={"chips": True})
    """Parts of the prompt that each demand something. They are guessed; take one away, or type another as it stands in the prompt."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", tuple(self.clauses))
        _ = self.asked

    @property
    def asked(self) -> ClausePrompt:
        """The prompt with its clauses."""
        return clauses_of(self.prompt, self.clauses)


def example_settings(example: str) -> dict[str, Any]:
    """The fields of `TellSettings` that an example fills in."""
    prompt = from_story(EXAMPLES[example].prompt)
    return {
        "example": example,
        "prompt": prompt.prompt,
        "clauses": tuple(clause.text for clause in prompt.clauses),
    }


@dataclass(frozen=True)
class Asked:
    """One text of a folder."""

    source: str = ""
    """What ProSG comes from: a name in `UNTRAINED`, the folder of a trained synthesiser, or "" for the plain backbone."""
    strength: float = 1.0
    """By what its change of the weights is multiplied."""
    again_at: int | None = None
    """The number of tokens of the plain text behind which the prompt is read again."""

    @property
    def label(self) -> str:
        """What it is called in figures."""
        if self.again_at is not None:
            return f"read again behind {self.again_at}"
        return f"ProSG, {source_name(self.source)} × {self.strength:g}" if self.source else PLAIN


def sources(runs: Path, backbone: str) -> list[tuple[str, str]]:
    """What ProSG can come from for a backbone: (name, source), the bundled synthesiser first, then those trained here."""
    bundled = SYNTHESISERS / backbone
    found = [(source_name(str(bundled)), str(bundled))] if (bundled / "method.json").is_file() else []
    found += [(name, source) for source, name in UNTRAINED.items()]
    for run in Run.list(runs):
        try:
            facts = run.config
            ours = facts["method"]["kind"] == KIND and facts["backbone"]["name"] == backbone
        except (WorkbenchError, KeyError):
            continue
        if ours and (run.path / "method/method.json").is_file():
            found.append((source_name(str(run.path)), str(run.path)))
    return found


def source_name(source: str) -> str:
    """What a source is called: "error (nothing trained)", "bundled", or the folder of a run."""
    if source in UNTRAINED:
        return UNTRAINED[source]
    return "bundled" if Path(source).parent == SYNTHESISERS else Path(source).name


def make_method(backbone: Backbone, source: str, strength: float = 1.0) -> SyntheticGradient | None:
    """What a source stands for, with changes of this strength; None for the plain backbone."""
    from workbench.methods.method import load_method
    from workbench.methods.synthetic_gradient import SyntheticGradient

    if not source:
        return None
    if source in UNTRAINED:
        method = SyntheticGradient(backbone, source=source)  # type: ignore[arg-type]
    else:
        loaded = load_method(source, backbone)
        if not isinstance(loaded, SyntheticGradient):
            raise WorkbenchError(
                f"{source} holds a method of another kind, {loaded.kind}; choose a synthesiser"
            )
        method = loaded
    method.strength = strength
    return method


class Told:
    """A folder of texts behind one prompt.

    Args:
        home: the folder; `begin` makes a new one.

    Raises:
        WorkbenchError: a folder without what was asked, or one that is damaged.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        try:
            self.settings = TellSettings(**json.loads((home / ASKED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise WorkbenchError(f"{home} holds no readable texts ({error}); press Generate again") from None
        self._loaded: dict[str, tuple[tuple[int, int], Kept | None]] = {}

    @classmethod
    def begin(cls, home: Path, settings: TellSettings) -> Told:
        """A new folder, with the plain text asked for."""
        home.mkdir(parents=True)
        write_json(home / ASKED, asdict(settings))
        made = cls(home)
        made.ask(Asked())
        return made

    @property
    def asked(self) -> dict[str, Asked]:
        """Number, "00" and so on, to what was asked, in order."""
        paths = sorted(self.home.glob("[0-9][0-9]*.json"))
        return {path.stem: Asked(**json.loads(path.read_text(encoding="utf-8"))) for path in paths}

    def ask(self, asked: Asked) -> str:
        """Adds a text, still to be written; its number. One that was asked for already is not added again."""
        there = self.asked
        for number, other in there.items():
            if other == asked:
                return number
        number = f"{len(there):02d}"
        write_json(self.home / f"{number}.json", asdict(asked))
        return number

    def forget(self, number: str) -> None:
        """Takes back what was asked where no token of it was written; with the plain text the folder goes."""
        if self.text(number) is None:
            (self.home / f"{number}.json").unlink(missing_ok=True)
            if not self.asked:
                (self.home / ASKED).unlink(missing_ok=True)
                self.home.rmdir()

    def path(self, number: str) -> Path:
        """The file of a text."""
        return self.home / f"{number}.jsonl"

    def text(self, number: str) -> Kept | None:
        """What there is of a text; None before its first token."""
        path = self.path(number)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        key = (stat.st_mtime_ns, stat.st_size)
        if self._loaded.get(number, (None,))[0] != key:
            self._loaded[number] = (key, load(path))
        return self._loaded[number][1]

    def undone(self) -> list[str]:
        """The numbers of texts that have not come to their end."""
        return [n for n in self.asked if (text := self.text(n)) is None or not text.done]


class Telling(threading.Thread):
    """Has the texts of a folder written that are not done, and those that are asked for meanwhile.

    Args:
        told: the folder.

    Attributes:
        written, of: tokens so far, and the most that there can be, of all texts that it is at; 0 while models are read.
        error, field: what went wrong, and the field of the form that it is about.
        stopped: whether it was asked to end and has; what was written stays to be looked at.
    """

    def __init__(self, told: Told) -> None:
        super().__init__(name=f"telling {told.home.name}", daemon=True)
        self.told, self.written, self.of = told, 0, 0
        self.error: Exception | None = None
        self.field, self.stopped = "backbone", False
        self._unwanted = threading.Event()
        self._over, self._more = False, True
        self._asking = threading.Lock()

    def stop(self) -> None:
        """Ends after the token at hand."""
        self._unwanted.set()

    def takes(self, asked: Asked) -> bool:
        """Adds a text to what it has written; False where it has ended already."""
        with self._asking:
            if self._over:
                return False
            self.told.ask(asked)
            self._more = True
            return True

    def run(self) -> None:
        """Does it; what goes wrong is kept for the panel, which says it in one sentence."""
        going: dict[str, Iterator[ForgettingStep]] = {}
        seen: set[str] = set()
        number = ""
        try:
            while not self._unwanted.is_set():
                with self._asking:
                    new = [n for n in self.told.undone() if n not in seen] if self._more else []
                    self._more = False
                    if not (new or going):
                        self._over = True
                        return
                for number in new:
                    seen.add(number)
                    going[number] = self._steps(number)
                for number in list(going):
                    if self._unwanted.is_set():
                        break
                    if next(going[number], None) is None:
                        del going[number]
                    else:
                        self.written += 1
            self.stopped = True
        except Exception as error:
            self.error = error
            self.told.forget(number)
        finally:
            with self._asking:
                self._over = True
            for steps in going.values():
                steps.close()  # type: ignore[attr-defined]

    def _steps(self, number: str) -> Iterator[ForgettingStep]:
        """Has one text written; nothing is read before the first token is wanted."""
        from workbench.analysis.forgetting import can_read_state, follow_forgetting
        from workbench.backbones.states import state_sizes
        from workbench.methods.generate import default_config
        from workbench.training.work import shared_backbone

        asked, settings = self.told.asked[number], self.told.settings
        backbone = shared_backbone(settings.backbone)
        self.field = "prompt"
        method = make_method(backbone, asked.source, asked.strength)
        config = default_config(
            method,
            max_new_tokens=settings.tokens,
            temperature=settings.temperature,
            seed=settings.seed,
        )
        layers = {"state_cosine": list(state_sizes(backbone))} if can_read_state(backbone) else {}
        self.of += settings.tokens - (asked.again_at or 0)
        if asked.again_at is None:
            steps = follow_forgetting(backbone, settings.asked, method=method, config=config)
            yield from keep(self.told.path(number), settings.asked, steps, layers)
            return
        plain = self.told.text("00")
        ids = plain.forgetting.ids[: asked.again_at] if plain is not None else ()
        steps = follow_forgetting(
            backbone, settings.asked, method=method, config=config, written=ids, again=True
        )
        path, before = self.told.path(number), self.told.path("00")
        yield from keep(path, settings.asked, steps, layers, before, asked.again_at)


def newest_home(folder: Path) -> Path | None:
    """The newest folder of texts; None where there is none."""
    return max((path.parent for path in folder.glob(f"[0-9]*/{ASKED}")), default=None)


def telling_html(work: Telling | None, told: Told | None) -> str:
    """The track of the progress, and one sentence on where things stand."""
    text, stage, done = "Write a prompt, or take an example, and press Generate.", "", 0.0
    if work is not None and work.is_alive():
        text, stage = "Getting ready: reading the libraries and the model …", "loading"
        if work.written:
            text, stage, done = (
                f"Writing: token {work.written:,} of at most {work.of:,}",
                "training",
                work.written / work.of,
            )
    elif work is not None and work.error is not None:
        text, stage = "Failed.", "failed"
    elif told is not None and told.undone():
        word = "Interrupted" if work is None else "Stopped"
        text, stage = f"{word}. Generate has what is missing written.", word.lower()
    elif told is not None:
        where = f"<br><small>kept in {Path(os.path.relpath(told.home)).as_posix()}</small>"
        count = len(told.asked)
        text, stage, done = (
            f"Written: {count} text{'s' * (count > 1)} behind this prompt{where}",
            "finished",
            1.0,
        )
    track = f"<div class='wb-track wb-{stage}'><div style='width:{done:.1%}'></div></div>"
    return f"<div class='wb-status'>{track}{text}</div>"


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
