"""The one error that a user of the workbench is meant to read. Holds no control flow."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class WorkbenchError(Exception):
    """Something the user can put right; its message is one sentence that names the thing and what to do."""


def unknown(kind: str, name: str, known: Iterable[str]) -> WorkbenchError:
    """The error for a name that does not exist: says the nearest known names, or all when none is near.

    >>> unknown("task", "storis", ["stories", "reading"])
    WorkbenchError("no task is called 'storis'; did you mean 'stories'?")
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        hint = "known are " + ", ".join(names)
    return WorkbenchError(f"no {kind} is called {name!r}; {hint}")
