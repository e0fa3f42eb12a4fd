"""The figures of the paper's list, each made from its name: arXiv 2412.18582, embedding priors and posteriors.

    wb.views.figure("prior and posterior beside the vocabulary", runs=runs)
    NAMES["samples of each prior"].shows            # what it shows; .view is its class

Holds the names, and what each figure needs; the figures are views of their own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from workbench.errors import WorkbenchError, unknown
from workbench.views.view import View


@dataclass(frozen=True)
class Named:
    """A figure that has a name."""

    shows: str
    """In one sentence without its full stop."""
    home: str
    """Module and class of the view, as "landscape.Landscape"."""
    needs: tuple[tuple[str, ...], ...]
    """Settings that must be given; of each group one."""
    without: tuple[str, ...] = ()
    """Settings of the view that would make it another figure."""

    @property
    def view(self) -> type[View]:
        """The view's class; its module is imported now."""
        module, name = self.home.split(".")
        found: type[View] = getattr(importlib.import_module(f"workbench.views.{module}"), name)
        return found


NAMES: Mapping[str, Named] = MappingProxyType(
    {
        "sentence paths over the token embeddings": Named(
            "texts as arrows from each token to the next, over the vocabulary, beside a random walk",
            "sentence_paths.SentencePaths",
            (("backbone",), ("texts", "task")),
            without=("layer",),
        ),
        "sentence paths over the activations of a layer": Named(
            "the same over what a layer reads, of a task where one is given",
            "sentence_paths.SentencePaths",
            (("backbone",), ("texts", "task"), ("layer",)),
        ),
        "activations of tasks at each layer": Named(
            "a map a layer, with the tokens of two or three tasks and how far each keeps to itself",
            "layer_activations.LayerActivations",
            (("backbone",), ("tasks",)),
        ),
        "prior and posterior beside the vocabulary": Named(
            "where each prompt vector started and where training took it, over the vocabulary",
            "landscape.Landscape",
            (("runs",),),
        ),
        "prior and posterior beside the activations of tasks": Named(
            "the same beside what tasks look like in that space",
            "landscape.Landscape",
            (("runs",), ("tasks",)),
        ),
        "samples of each prior": Named(
            "what priors draw before anything is trained, each over the vocabulary",
            "prior_samples.PriorSamples",
            (("backbone",),),
        ),
    }
)


def figure(name: str, **settings: Any) -> View:
    """A figure of the paper's list, as a view: show it, `.save()` it, ask it for its `.data()`.

    Args:
        name: one of `NAMES`.
        settings: what the view takes, such as `backbone=`, `texts=`, `task=`, `layer=`, `runs=`, `tasks=`, `theme=`.

    Raises:
        WorkbenchError: no such figure, a setting that it does not have, or one that it needs and was not given.

    >>> figure("sentence paths over the token embeddings", backbone="tiny-llama", texts="the old king sang").data().token[1]
    'old'
    """
    if name not in NAMES:
        raise unknown("figure", name, NAMES)
    named = NAMES[name]
    missing = [
        " or ".join(f"{one}=" for one in group)
        for group in named.needs
        if all(_nothing(one, settings) for one in group)
    ]
    if missing:
        raise WorkbenchError(f"the figure {name!r} needs {' and '.join(missing)}; it shows {named.shows}")
    known = [one for one in inspect.signature(named.view).parameters if one not in named.without]
    for setting in settings:
        if setting not in known:
            raise unknown(f"setting of the figure {name!r}", setting, known)
    return named.view(**settings)


def _nothing(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting is missing; of runs there may be none yet, which the figure says itself."""
    value = settings.get(name)
    empty = isinstance(value, str | tuple | list | dict) and not value and name != "runs"
    return value is None or empty
