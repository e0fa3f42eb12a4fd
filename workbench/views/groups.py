"""Which runs are the same but for their seeds, and in which settings the others differ. Reads configs, draws nothing.

A setting is called by its place in config.json, `fit.learning_rate`. What config.json records beside the settings
sets no two runs apart: versions, the time, what was measured when a prior was fitted, the number of parameters, and
what a job does beside the training (the device that it got and the type of its numbers stand with the backbone).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.training.config import FitConfig

if TYPE_CHECKING:
    from workbench.training.run import Run

Settings = Mapping[str, Any]

#: The settings in which the runs of one group may differ, and how they are called.
SEEDS = {"method.config.seed": "method seed", "fit.seed": "fit seed"}

#: What config.json holds that is not a setting.
RECORDS = ("versions", "priors", "created", "method.parameters", "job")

#: The settings that a name begins with, in this order.
FIRST = (
    "backbone.name",
    "task.task",
    "method.kind",
    "method.config.prior.name",
    "method.config.tokens",
    "fit.learning_rate",
)

#: Settings whose value says enough without their name.
ALONE = ("backbone.name", "task.task", "method.kind")

#: What lies below a prefix may follow from one setting: a backbone's width from its name, LoRA's rank from the kind.
DECIDED_BY = {
    "backbone.": "backbone.name",
    "task.": "task.task",
    "method.config.prior.": "method.config.prior.name",
    "method.": "method.kind",
}

#: Facts that follow from what decides them wherever they can; the others only where some runs have no such setting.
FACTS = ("backbone.", "task.rows")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds."""

    name: str
    """The settings in which this group differs from the others; for a group alone, the name of its run, or `all runs`."""
    runs: tuple[Run, ...]
    settings: Settings
    """What its runs have in common."""


def settings_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a run by its dotted name. A setting of `fit` that was not there yet had its default."""
    fit = config.get("fit")
    whole = {**config, "fit": {**FitConfig().to_json(), **fit}} if isinstance(fit, Mapping) else config
    return {
        name: value
        for name, value in _flat(whole)
        if not any(name == record or name.startswith(record + ".") for record in RECORDS)
    }


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """The groups among `runs`, in an order that follows from their settings and not from the order of the runs.

    A run that is named twice counts once; one whose config cannot be read belongs to no group.
    """
    members: dict[str, list[tuple[Run, Settings]]] = {}
    for run, settings in _readable(runs):
        common = {name: value for name, value in settings.items() if name not in SEEDS}
        members.setdefault(_text(common), []).append((run, common))
    found = [(tuple(run for run, _ in kept), kept[0][1]) for kept in members.values()]
    differing = _ordered([settings for _, settings in found])
    found.sort(key=lambda one: [_rank(one[1], name) for name in differing])
    names = _apart(_names([settings for _, settings in found]), [runs[0] for runs, _ in found])
    if len(found) == 1 and len(found[0][0]) > 1:
        names = ["all runs"]
    return [Group(name, *one) for name, one in zip(names, found, strict=True)]


def name_runs(runs: Iterable[Run]) -> list[tuple[Run, str]]:
    """Each readable run with the settings in which it differs from the others, its seeds too; no two names alike."""
    readable = _readable(runs)
    names = _apart(_names([settings for _, settings in readable]), [run for run, _ in readable])
    return [(run, name) for (run, _), name in zip(readable, names, strict=True)]


def difference_table(groups: Sequence[Group]) -> pd.DataFrame:
    """One row a setting in which the groups differ (`setting`), one column a group, as text; then seeds and runs.

    Unlike a group's name it leaves out nothing that follows from another setting. A group alone has the settings that
    a name begins with.
    """
    many = [group.settings for group in groups]
    names = _ordered(many) if len(many) > 1 else [name for name in FIRST if many and name in many[0]]
    rows = [
        {"setting": name} | {g.name: _value(g.settings[name]) if name in g.settings else "—" for g in groups}
        for name in names
    ]
    for seed, label in SEEDS.items():
        rows.append({"setting": label} | {g.name: _seeds(g, seed) for g in groups})
    rows.append({"setting": "runs"} | {g.name: ", ".join(run.name for run in g.runs) for g in groups})
    return pd.DataFrame(rows, columns=["setting", *(g.name for g in groups)])


def _readable(runs: Iterable[Run]) -> list[tuple[Run, Settings]]:
    """The runs by path, each once, with their settings."""
    found: dict[str, tuple[Run, Settings]] = {}
    for run in runs:
        try:
            config = run.config
        except WorkbenchError:
            continue
        if isinstance(config, Mapping):
            found.setdefault(str(run.path), (run, settings_of_config(config)))
    return [found[path] for path in sorted(found)]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, value


def _text(value: Any) -> str:
    """One text for equal values: 1 and 1.0 are, true and 1 are not, and the order of keys does not count."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ordered(many: Sequence[Settings]) -> list[str]:
    """The settings that are not the same in all of `many`; one that some do not have is not the same."""
    found = {
        name
        for name in set().union(*many)
        if len({_text(settings[name]) if name in settings else None for settings in many}) > 1
    }
    return sorted(found, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


def _names(many: Sequence[Settings]) -> list[str]:
    """For each of `many` the settings in which it differs from the others; nothing where all are the same."""
    shown = [name for name in _ordered(many) if not _follows(name, many)]
    last = Counter(name.rsplit(".", 1)[-1] for name in shown)
    labels = {}
    for name in shown:
        *_, above, own = ["", *name.split(".")]
        own = above if own == "name" else own if last[own] == 1 else f"{above} {own}"
        labels[name] = SEEDS.get(name, own.replace("_", " "))
    return [", ".join(_part(settings, name, labels[name]) for name in shown) for settings in many]


def _apart(names: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """The names, with the run's own where there is none, or where another is the same."""
    count = Counter(names)
    return [
        f"{name} ({run.name})" if count[name] > 1 and name else name or run.name
        for name, run in zip(names, runs, strict=True)
    ]


def _part(settings: Settings, name: str, label: str) -> str:
    if name not in settings:
        return f"no {label}"
    return _value(settings[name]) if name in ALONE else f"{label} {_value(settings[name])}"


def _follows(name: str, many: Sequence[Settings]) -> bool:
    """Whether a setting's value, or that it is not there, follows in all of `many` from another setting."""
    for prefix, decider in DECIDED_BY.items():
        if not name.startswith(prefix) or name == decider:
            continue
        if not name.startswith(FACTS) and all(name in settings for settings in many):
            continue
        by: dict[str, set[str | None]] = {}
        for settings in many:
            value = _text(settings[name]) if name in settings else None
            by.setdefault(_text(settings.get(decider)), set()).add(value)
        if all(len(values) == 1 for values in by.values()):
            return True
    return False


def _value(value: Any) -> str:
    return value if isinstance(value, str) else _text(value)


def _rank(settings: Settings, name: str) -> tuple[int, float, str]:
    """For sorting: what is not there first, numbers by size, all else by its text."""
    if name not in settings:
        return (0, 0.0, "")
    value = settings[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (1, float(value), "")
    return (2, 0.0, _value(value))


def _seeds(group: Group, name: str) -> str:
    found = []
    for run in group.runs:
        try:
            found.append(settings_of_config(run.config).get(name))
        except WorkbenchError:  # damaged since it was grouped
            continue
    return (
        ", ".join(sorted({_text(seed) for seed in found if seed is not None}, key=lambda t: (len(t), t)))
        or "—"
    )
