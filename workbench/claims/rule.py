"""Rules: what would make a claim hold, written down and committed before the first evidence.

A rule is a file of data/evidence/rules/: words for people and numbers for `verdict`, which is all that turns
measurements into "holds", "does not hold" or "undecided". Measures nothing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from workbench.data import EVIDENCE
from workbench.errors import WorkbenchError

RULES = EVIDENCE / "rules"
Interval = Sequence[float | None]
"""[low, high]; None, as JSON has it, is an end that is not there."""
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
_KEYS = ("claim", "sentence", "source", "effect", "interval", "side", "threshold", "can_test", "also", "together", "cells_needed", "limits")  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One rule as its file has it.

    facts: `claim`; `sentence` and `source` of the claim; `effect` and `interval`, how they are defined, in words;
        `side` ("above" or "below") and `threshold`, where the effect lies if the claim is right; `can_test`,
        conditions without which a cell cannot test the claim; `also`, conditions that it needs to hold beside its
        interval; `together`, how cells make the claim, in words; `cells_needed`, the share of cells that must be able
        to test it; `limits`, what a verdict does not say.
    """

    path: Path
    facts: Mapping[str, Any]

    def verdict(self, interval: Interval | None, numbers: Mapping[str, Any]) -> tuple[str, str]:
        """The verdict on one cell, and the reason.

        holds: the whole interval lies on the claim's side of the threshold, and the conditions of `also` are met.
        does not hold: the whole interval lies on the other side. Otherwise, or where a condition of `can_test` is
        not met, undecided.
        """
        if why := self.obstacle(interval, numbers):
            return UNDECIDED, f"cannot test the claim: {why}"
        assert interval is not None
        verdict, reason = self._side(interval)
        for condition in self.facts["also"]:
            if verdict == HOLDS and not met(condition, numbers):
                return UNDECIDED, f"{reason}, but {said(condition, numbers)}"
        return verdict, reason

    def obstacle(self, interval: Interval | None, numbers: Mapping[str, Any]) -> str | None:
        """Why a cell cannot test the claim; None where it can."""
        for condition in self.facts["can_test"]:
            if not met(condition, numbers):
                return said(condition, numbers)
        return "there is no effect to measure" if interval is None else None

    def together(self, interval: Interval | None, cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """The verdict on the claim, and the reason.

        Args:
            interval: of the weakest effect among the cells that can test the claim.
            cells: each with its `verdict` and `can_test`.
        """
        able = [cell for cell in cells if cell["can_test"]]
        needed = self.facts["cells_needed"]
        if interval is None or not able or len(able) < needed * len(cells):
            return UNDECIDED, f"{len(able)} of {len(cells)} cells can test the claim, fewer than {needed:.0%}"
        verdict, reason = self._side(interval)
        held = sum(cell["verdict"] == HOLDS for cell in able)
        count = f"it holds in {held} of the {len(able)} cells that can test it"
        if verdict == HOLDS and held < len(able):
            return UNDECIDED, f"{reason}, but {count}"
        return verdict, f"{reason}; {count}"

    def _side(self, interval: Interval) -> tuple[str, str]:
        low, high = (
            end if end is not None else none for end, none in zip(interval, (-inf, inf), strict=True)
        )
        threshold, above = self.facts["threshold"], self.facts["side"] == "above"
        if low > threshold:
            return HOLDS if above else FAILS, f"the whole interval lies above {threshold:g}"
        if high < threshold:
            return FAILS if above else HOLDS, f"the whole interval lies below {threshold:g}"
        return UNDECIDED, f"the interval holds {threshold:g}"

    def commit(self) -> str:
        """The hash of the commit that the rule is from.

        Raises:
            WorkbenchError: the file has changes that are not committed, or git knows nothing of it.
        """
        changed = self._git("status", "--porcelain", "--", self.path.name)
        found = self._git("log", "-1", "--format=%H", "--", self.path.name)
        if changed is None or not found:
            raise WorkbenchError(
                f"the rule {self.path} is in no git commit, and evidence needs a rule that was committed before it; "
                "commit it, or work in a clone of the repository"
            )
        if changed:
            raise WorkbenchError(
                f"the rule {self.path} has changes that are not committed; commit them before there is any evidence"
            )
        return found

    def _git(self, *words: str) -> str | None:
        """What git says in the rule's folder; None where it refuses, or is not there."""
        try:
            done = subprocess.run(["git", *words], cwd=self.path.parent, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None


def load_rule(claim: str, folder: Path = RULES) -> Rule:
    """The rule of a claim.

    Raises:
        WorkbenchError: there is none, or it is damaged.
    """
    path = Path(folder).resolve() / f"{claim}.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"the rule {path} is missing or damaged ({error}); restore it") from error
    for key in _KEYS:
        if key not in facts:
            raise WorkbenchError(f"the rule {path} has no {key!r}; restore it")
    if facts["side"] not in ("above", "below"):
        raise WorkbenchError(f"the rule {path} has side={facts['side']!r}; it is 'above' or 'below'")
    return Rule(path, facts)


def met(condition: Mapping[str, Any], numbers: Mapping[str, Any]) -> bool:
    """Whether a number is `above`, `at_least` or `at_most` what the condition names; one that is missing is not."""
    value = numbers.get(condition["number"])
    if value is None:
        return False
    tests = {"above": float.__gt__, "at_least": float.__ge__, "at_most": float.__le__}
    return all(test(float(value), float(condition[key])) for key, test in tests.items() if key in condition)


def said(condition: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """Why a condition is not met."""
    value = numbers.get(condition["number"])
    shown = f"{value:.3g}" if isinstance(value, (int, float)) else "not known"
    return f"{condition['otherwise']} ({condition['number']} is {shown})"
