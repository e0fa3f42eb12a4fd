"""The changes that prompts of many stories make of the weights, worked out once and kept in a folder. Draws nothing."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import WorkbenchError, unknown
from workbench.tasks.world.phrases import KINDS
from workbench.views.change_map import MappedChanges
from workbench.views.telling import make_method, source_name

if TYPE_CHECKING:
    from workbench.backbones.backbone import Backbone

#: Prompts that are mapped, and clauses of each.
STORIES, CLAUSES = 200, 6

_VERSION = 1


def kinds() -> list[str]:
    """Kinds of clauses that prompts can be coloured by, one that stands out first."""
    return sorted(KINDS, key=lambda kind: (kind != "ending", kind))


def prompts_with(kind: str, many: int = STORIES) -> tuple[list[str], list[str]]:
    """The first prompts of the world's stories that have a clause of a kind, and its value in each.

    Raises:
        WorkbenchError: no such kind.
    """
    from workbench.tasks.clauses import from_story
    from workbench.tasks.task import load_task

    if kind not in KINDS:
        raise unknown("kind of clause", kind, KINDS)
    task = load_task("stories", clauses=CLAUSES, length=12 * CLAUSES + 8)
    stories = (from_story(task[index].prompt) for index in count())
    found = (
        (story.prompt, str(clause.value))
        for story in stories
        for clause in story.clauses
        if clause.kind == kind
    )
    prompts, values = zip(*islice(found, many), strict=True)
    return list(prompts), list(values)


def map_changes(
    backbone: Backbone | str, source: str, kind: str, folder: Path, many: int = STORIES
) -> MappedChanges:
    """The changes by many prompts with a clause of a kind; those of the same source are not worked out twice.

    Args:
        backbone: what is changed.
        source: what makes the changes, see `telling.sources`.
        kind: the kind of clause by whose value prompts are told apart.
        folder: where they are kept, a file for each backbone, source and kind.
        many: prompts.
    """
    from workbench.analysis.weight_changes import change_gram, coordinates, prompt_rows
    from workbench.views.maps import model

    prompts, values = prompts_with(kind, many)
    known = model(backbone)
    key: dict[str, Any] = {
        "backbone": known.name,
        "source": source,
        "made": _made(source),
        "version": _VERSION,
    }
    key |= {"prompts": prompts}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = folder / f"{name}.npz"
    if path.is_file():
        try:
            vectors = np.load(path)["vectors"]
        except (OSError, ValueError, KeyError) as error:
            raise WorkbenchError(f"{path} is damaged ({error}); delete it, and map again") from None
    else:
        method = make_method(known, source)
        if method is None:
            raise WorkbenchError("the plain backbone changes no weights; choose a source of ProSG")
        vectors = coordinates(change_gram(method, prompt_rows(method, prompts)))
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}.partial.npz")
        np.savez(partial, vectors=vectors)
        os.replace(partial, path)
    return MappedChanges(vectors, tuple(values), tuple(prompts), kind, f"ProSG, {source_name(source)}")


def _made(source: str) -> int:
    """When a trained synthesiser was written; 0 where none is."""
    paths = [Path(source) / "method.safetensors", Path(source) / "method/method.safetensors"]
    return next((path.stat().st_mtime_ns for path in paths if path.is_file()), 0)
