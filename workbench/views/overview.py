"""What there is: the notebooks, what is installed, the runs, the claims. One listing each, all from small files.

None loads a model, trains, or judges. The bundled backbones have a file of their own, cards.py.
"""

from __future__ import annotations

import platform
import re
import time
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

import workbench
from workbench.data import DATA, EVIDENCE
from workbench.views.listing import Listing, near, read_json
from workbench.views.shelf import Shelf
from workbench.views.theme import Theme

#: The most runs that are listed.
MOST_RUNS = 12


class Notebooks(Listing):
    """The notebooks of a folder: the title and the first two sentences of each."""

    title, nothing = "Notebooks", "There are no notebooks in this folder."

    def __init__(self, folder: str | Path = ".", theme: Theme = "light") -> None:
        super().__init__(theme)
        self.folder = Path(folder)

    def data(self) -> pd.DataFrame:
        """One row a notebook, by name: file, title, about.

        Raises:
            WorkbenchError: a notebook cannot be read.
        """
        rows = [(path.name, *_opening(path)) for path in sorted(self.folder.glob("*.ipynb"))]
        return pd.DataFrame(rows, columns=["file", "title", "about"])

    def shown(self) -> pd.DataFrame:
        """Title, and what it is about."""
        return self.data()[["title", "about"]].set_axis(["notebook", "what you will see"], axis=1)

    def links(self) -> dict[str, str]:
        """Each title leads to its notebook."""
        return {row.title: near(self.folder / row.file) for row in self.data().itertuples()}


class Installed(Listing):
    """What is installed, whether it is what the tests ran with, and the device that "auto" means here."""

    title, nothing = "Installed", "Nothing is installed."

    def data(self) -> pd.DataFrame:
        """One row a package that the workbench names: package, version (None: missing), tested (of constraints.txt)."""
        tested = _tested()
        rows = [(name, _version(name), tested.get(name)) for name in _named()]
        return pd.DataFrame(rows, columns=["package", "version", "tested"]).astype(object)

    def shown(self) -> pd.DataFrame:
        """A line for the machine, and one for the packages."""
        table = self.data()
        there = table[table["version"].notna()]
        missing = table.loc[table["version"].isna(), "package"]
        other = there[there["tested"].notna() & (there["version"].map(_public) != there["tested"])]
        rows = {
            "workbench": f"{workbench.__version__}, in Python {platform.python_version()} on {platform.system()}",
            "device": device_text(),
            "packages": ", ".join(f"{row.package} {row.version}" for row in there.itertuples()),
            "missing": ", ".join(missing),
            "not as tested": ", ".join(
                f"{row.package} {row.version} (tested: {row.tested})" for row in other.itertuples()
            ),
        }
        return pd.DataFrame([row for row in rows.items() if row[1]], columns=["what", "which"])


class Runs(Listing):
    """The newest runs below a folder, but for those of studies."""

    title, nothing = "Runs", "There are no runs yet: train a prompt in the notebook “Your first prompt”."

    def __init__(self, folder: str | Path = "../runs", theme: Theme = "light") -> None:
        super().__init__(theme)
        self.folder = Path(folder)
        self._shelf = Shelf(self.folder)

    def data(self) -> pd.DataFrame:
        """One row a run, newest first, at most MOST_RUNS.

        run (its folder below the folder), backbone, task, method, state, step, steps; loss (nats a token, at the last
        step); measure and score (its best on validation); started (UTC); note (what is wrong with it).
        """
        columns = "run backbone task method state step steps loss measure score started note".split()
        rows = [
            (
                entry.name,
                entry.backbone,
                entry.task,
                entry.method,
                entry.state,
                entry.step,
                entry.steps,
                entry.loss,
                entry.measure,
                entry.best_validation_score,
                time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.created)),
                entry.note,
            )
            for entry in self._shelf.look()[:MOST_RUNS]
        ]
        return pd.DataFrame(rows, columns=columns)

    def shown(self) -> pd.DataFrame:
        """The same, closer together."""
        rows = [
            (
                row.run,
                f"{row.method} on {row.backbone}" if row.method else "",
                row.task,
                f"{row.state}: {row.note}" if row.note else _how_far(row),
                "" if pd.isna(row.loss) else f"{row.loss:.3f}",
                "" if pd.isna(row.score) else f"{row.measure.replace('_', ' ')} {row.score:.0%}",
                row.started,
            )
            for row in self.data().itertuples()
        ]
        heads = "run|what|task|how far|loss (nats per token)|best on validation|started (UTC)".split("|")
        return pd.DataFrame(rows, columns=heads)

    def note(self) -> str:
        """How many there are, where not all are shown."""
        count = len(self._shelf.look())
        newest = f"The newest {MOST_RUNS} of {count:,} runs." if count > MOST_RUNS else ""
        return f"{newest} {self._shelf.left_out}".strip()


class Claims(Listing):
    """What papers claim, tried by `workbench reproduce`: the verdict by a rule that was there before the evidence."""

    title, nothing = "Claims", "There are no rules for claims here."

    def __init__(self, folder: Path = EVIDENCE, theme: Theme = "light") -> None:
        super().__init__(theme)
        self.folder = folder

    def data(self) -> pd.DataFrame:
        """One row a claim.

        claim, sentence, source; rule (where the effect lies if the claim is right); verdict ("not tried" where there is
        no evidence); effect, low, high (its 95% interval; empty where there is none); reason.
        """
        rows = []
        for path in sorted((self.folder / "rules").glob("*.json")):
            rule, tried = read_json(path), self.folder / path.name
            found: dict[str, Any] = read_json(tried) if tried.is_file() else {"verdict": "not tried"}
            low, high = found.get("interval") or (None, None)
            rows.append(
                {
                    "claim": rule["claim"],
                    "sentence": rule["sentence"],
                    "source": rule["source"],
                    "rule": f"{rule['side']} {rule['threshold']:g}",
                    "verdict": found["verdict"],
                    "effect": found.get("effect"),
                    "low": low,
                    "high": high,
                    "reason": found.get("reason", ""),
                }
            )
        return pd.DataFrame(rows, columns=None if rows else ["claim"])

    def shown(self) -> pd.DataFrame:
        """The verdict beside the numbers that it follows from."""
        heads = ["claim", "what it says", "verdict", "effect", "95% interval", "holds if"]
        rows = [
            (
                row.claim,
                row.sentence,
                row.verdict,
                _number(row.effect),
                f"{_number(row.low) or '−∞'} to {_number(row.high) or '∞'}" if _number(row.effect) else "",
                row.rule,
            )
            for row in self.data().itertuples()
        ]
        return pd.DataFrame(rows, columns=heads)

    def note(self) -> str:
        """How to try one."""
        untried = [row.claim for row in self.data().itertuples() if row.verdict == "not tried"]
        return f"Try one from a shell: workbench reproduce {untried[0]}" if untried else ""


def device_text() -> str:
    """The device that a backbone is loaded on unless told otherwise."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}; no accelerator was found"
    if accelerator.type == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    return accelerator.type


def _opening(path: Path) -> tuple[str, str]:
    """The title of a notebook, and the first two sentences below it."""
    cells = read_json(path).get("cells", [])
    title, _, text = "".join(cells[0]["source"]).strip().partition("\n") if cells else (path.stem, "", "")
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return title.lstrip("# "), " ".join(sentences[:2])


def _how_far(row: Any) -> str:
    asked = "" if pd.isna(row.steps) else f" of {row.steps:,.0f}"
    return f"{row.state}, step {row.step:,}{asked}"


def _named() -> list[str]:
    """The packages that pyproject.toml names for notebooks: the dependencies, and those of the extra `lab`."""
    path = DATA.parent / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    return sorted({_name(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in asked})


def _tested() -> dict[str, str]:
    """Package to version, of constraints.txt; empty outside a checkout."""
    path = DATA.parent / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_name(name): version for name, version in pins}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _name(package: str) -> str:
    return package.lower().replace("_", "-")


def _public(version: str) -> str:
    """Without the build: 2.13.0+cpu is 2.13.0."""
    return version.split("+")[0]


def _number(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.3g}"
