"""A map of vectors, fitted once, in which others are placed: PCA, UMAP or t-SNE behind one call. Arrays in, arrays out.

    frame = fit_projection(np.concatenate([vocabulary, prior]), ProjectionConfig("umap"), parts=(len(vocabulary), len(prior)))
    words, starts = frame.part(0), frame.part(1)        # which rows were kept, and their points
    now = frame.place(snapshot)                         # now.points, now.distance, now.off
    frame = align(frame, frame_of_the_layer_before)     # turned, so that points do not jump for no reason

Were the map fitted anew at every step, a point could seem to move because the map did. A placed point moves because its
vector did: its place depends on nothing but itself, and the same vector is always at the same place. It also carries
its distance to what the map was fitted to, for a map shows a place for anything, also for what is like nothing on it.

It never draws, and reads no model; a fitted map is kept as safetensors, never pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.analysis.reference import SAMPLED, Metric, Reference
from workbench.errors import WorkbenchError, unknown

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Kind = Literal["pca", "umap", "tsne"]

#: Changes when a kept map would no longer be read, or be made, the same way.
VERSION = 1

#: A point is off the map when it is farther from the fitted rows than this share of them are from one another.
OFF_MAP = 0.99

#: An axis of a start that is narrower than this share of the widest one is rounding alone.
FLAT = 1e-6

#: How far a start is jittered, as a share of its widest axis.
JITTER = 1e-4

#: What each kind reads of its settings: the rest does not make it another map.
_READS: dict[Kind, tuple[str, ...]] = {
    "pca": ("dimensions", "most", "seed"),
    "umap": ("dimensions", "neighbours", "reduce", "most", "seed"),
    "tsne": ("dimensions", "neighbours", "perplexity", "reduce", "most", "seed"),
}

#: numba's own threads end the process when two fits compile or run at once.
_UMAP_IN_USE = threading.Lock()


@dataclass(frozen=True)
class ProjectionConfig:
    """How a map is fitted. What its kind does not read changes nothing."""

    kind: Kind = "pca"
    """"pca": the directions of most variance, so distances keep their unit. "umap" or "tsne": near stays near, and
    distances between groups mean nothing."""
    dimensions: int = 2
    """Axes of the map; t-SNE has at most 3."""
    neighbours: int = 15
    """UMAP: rows that count as near to a row. UMAP and t-SNE: rows by which a new vector is placed."""
    perplexity: float = 30.0
    """t-SNE: about how many rows count as near to a row."""
    reduce: int = 50
    """UMAP and t-SNE: wider vectors are first reduced to so many main directions."""
    most: int = 30_000
    """Rows that are fitted; of more as many are drawn, with the seed."""
    seed: int = 0
    """Draws rows, and decides all that a kind leaves to chance."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise unknown("projection", str(self.kind), get_args(Kind))
        if self.dimensions < 1 or (self.kind == "tsne" and self.dimensions > 3):
            raise WorkbenchError(
                f"dimensions is {self.dimensions}; choose 1 or more, and for t-SNE at most 3"
            )
        if self.neighbours < 2:
            raise WorkbenchError(f"neighbours is {self.neighbours}; choose 2 or more")
        if not self.perplexity >= 1:
            raise WorkbenchError(f"perplexity is {self.perplexity}; choose 1 or more")
        if self.reduce < self.dimensions:
            raise WorkbenchError(
                f"reduce is {self.reduce}, which is less than the map's {self.dimensions} dimensions; choose more"
            )
        if self.most <= self.dimensions + 1:
            raise WorkbenchError(
                f"most is {self.most}, which is too few rows for {self.dimensions} dimensions; choose "
                f"{self.dimensions + 2} or more"
            )
        if not 0 <= self.seed < 2**32:
            raise WorkbenchError(f"seed is {self.seed}; choose one from 0 to {2**32 - 1}")

    def read(self) -> dict[str, Any]:
        """The kind, and the settings that it reads."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in _READS[self.kind]}


class Placed(NamedTuple):
    """Vectors on a map. Shapes: (…) are the vectors', k the map's dimensions."""

    points: Floats
    """(…, k); nan for a vector that is not finite."""
    distance: Floats
    """(…) to the nearest fitted row, as a multiple of `Projection.spacing`; 0 for a fitted row itself."""
    off: NDArray[np.bool_]
    """(…) farther than `Projection.limit`: what is around its point is nothing that it is like."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A fitted map. Made by `fit_projection`.

    Shapes: d the vectors' width, k the map's dimensions, m the rows that were fitted.

    Distances to the fitted rows are Euclidean in the original space, all d directions of it, and exact: within the
    reduced space alone, what stands out in any other direction would seem to be at home.
    """

    config: ProjectionConfig
    key: Mapping[str, Any]
    """What the map was made of: the caller's key, the settings, a version, and a hash of the data itself."""
    points: Floats
    """(m, k) places of the fitted rows."""
    vectors: Floats
    """(m, d) the fitted rows."""
    kept: Ints
    """(m,) which of the given rows were fitted, rising; all unless there were more than `config.most`."""
    total: int
    """Rows given."""
    parts: tuple[int, ...]
    """How many of the given rows belong to each part, in order; one part unless told otherwise."""
    explained: Floats | None
    """(k,) PCA: share of the fitted rows' variance along each axis; zeros where there is none. Others have None."""
    words: tuple[str, ...]
    """m texts, "" for rows that were given none; empty when there were no words at all."""
    note: str
    """What was thinned or reduced, as a sentence for a figure without its full stop; "" where nothing was."""
    spacing: float
    """The unit of distances: the median distance of a fitted row to the nearest other one, copies left out."""
    limit: float
    """In `spacing`: the quantile `OFF_MAP` of the fitted rows' own distances to the nearest other row. So of further
    draws from where the fitted rows came from about 1 - OFF_MAP are off the map."""
    mean: Floats
    """(d,) PCA: the point that `offset` is the place of; others leave it empty."""
    axes: Floats
    """(k, d) PCA: the axes, orthonormal, or zeros where the rows are `alike`; others leave it empty."""
    offset: Floats
    """(k,) PCA: the place of the mean; zeros until the map is aligned."""

    def place(self, vectors: ArrayLike) -> Placed:
        """(…, d) vectors on the map.

        PCA projects them. UMAP and t-SNE have no such map of their own that would treat each vector alone (umap-learn's
        moves a point by chance and by its company; scikit-learn's t-SNE has none), so a vector is placed at the mean of
        the places of its nearest fitted rows, as openTSNE and umap-learn begin (Poličar et al. 2019), weighted as in
        Franke and Nielson 1980: ((R - r) / (R·r))² for a row at distance r, R being the distance of the first row that
        no longer counts. A fitted row is then at its own place, and a vector on its way does not jump.

        Raises:
            WorkbenchError: vectors of another width.
        """
        given = np.asarray(vectors, np.float32)
        if given.ndim < 1 or given.shape[-1] != self.vectors.shape[1]:
            raise WorkbenchError(
                f"vectors of shape {given.shape} cannot be placed on a map of vectors of width {self.vectors.shape[1]}"
            )
        shape, flat = given.shape[:-1], given.reshape(-1, given.shape[-1])
        finite = np.isfinite(flat).all(axis=1)
        points = np.full((len(flat), self.points.shape[1]), np.nan, np.float32)
        distance = np.full(len(flat), np.inf, np.float32)
        if finite.any():
            near = self._reference.nearest(flat[finite], 1 if self.linear else self._company + 1)
            points[finite] = self._project(flat[finite]) if self.linear else self._between(*near)
            distance[finite] = near.distance[:, 0] / self.spacing
        off = distance > self.limit
        return Placed(points.reshape(*shape, -1), distance.reshape(shape), off.reshape(shape))

    def part(self, number: int) -> tuple[Ints, Floats]:
        """Of one part of the given rows, counted from 0: which were fitted (j,), counted within the part, and their points (j, k)."""
        if not 0 <= number < len(self.parts):
            raise WorkbenchError(f"there is no part {number}; this map has {len(self.parts)}, counted from 0")
        start = sum(self.parts[:number])
        inside = slice(*np.searchsorted(self.kept, (start, start + self.parts[number])))
        return self.kept[inside] - start, self.points[inside]

    @property
    def linear(self) -> bool:
        """Whether lengths and directions on the map are those of the vectors."""
        return self.config.kind == "pca"

    @cached_property
    def alike(self) -> bool:
        """Whether all fitted rows are the same: then all points are at one place, and say nothing of one another."""
        return _different(self.vectors, 1) == 1

    def share_seen(self, before: ArrayLike, after: ArrayLike) -> float:
        """The share of a movement of vectors (…, d), in squared length, that a linear map shows; 1.0 for none.

        Raises:
            WorkbenchError: a map that is not linear, where a movement has no share.
        """
        if not self.linear:
            raise WorkbenchError(
                f"a {self.config.kind} map shows no fixed share of a movement; ask this of a PCA map"
            )
        moved = np.asarray(after, np.float32) - np.asarray(before, np.float32)
        whole = float(np.square(moved, dtype=np.float64).sum())
        return float(np.square(moved @ self.axes.T, dtype=np.float64).sum()) / whole if whole > 0 else 1.0

    def nearest(self, vectors: ArrayLike, metric: Metric = "euclidean") -> list[str]:
        """The word of the nearest fitted row that has one, for each of (n, d) vectors; "" where no row has."""
        vectors = np.asarray(vectors, np.float32)
        if self._worded is None:
            return [""] * len(vectors)
        words, reference = self._worded
        return [words[i] for i in reference.nearest(vectors, metric=metric).row[:, 0]]

    def save(self, path: str | Path, vectors: bool = True) -> Path:
        """Writes the map as safetensors, whole or not at all; without its vectors `load` must be given them.

        Raises:
            WorkbenchError: a folder that cannot be written.
        """
        from safetensors.numpy import save_file

        path = Path(path)
        facts = {
            name: getattr(self, name) for name in ("total", "parts", "note", "spacing", "limit", "words")
        }
        facts |= {
            "key": self.key,
            "config": {f.name: getattr(self.config, f.name) for f in fields(self.config)},
        }
        tensors: dict[str, NDArray[Any]] = {"points": self.points, "kept": self.kept}
        tensors["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        if self.linear:
            assert self.explained is not None
            tensors |= {
                "explained": self.explained,
                "mean": self.mean,
                "axes": self.axes,
                "offset": self.offset,
            }
        if vectors:
            tensors["vectors"] = self.vectors
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(
                {n: np.ascontiguousarray(t) for n, t in tensors.items()}, partial, {"version": str(VERSION)}
            )
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise WorkbenchError(f"the map cannot be kept as {path}: {error.strerror or error}") from error
        return path

    @classmethod
    def load(cls, path: str | Path, vectors: ArrayLike | None = None) -> Projection:
        """Reads what `save` wrote. vectors: all (n, d) that the map was fitted from, where they were not saved.

        Raises:
            WorkbenchError: a file that is no such map, is damaged, or is of another version.
        """
        from safetensors import safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                version = (file.metadata() or {}).get("version")
                read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            if version != str(VERSION):
                raise ValueError("it is of another version")
            facts = json.loads(read["facts"].tobytes())
            if "vectors" not in read:
                read["vectors"] = np.asarray(vectors)[read["kept"]].astype(np.float32)
            if not np.isfinite(read["points"]).all():
                raise ValueError("some of its points are nowhere")
            none = np.zeros(0, np.float32)
            return cls(
                ProjectionConfig(**facts["config"]),
                facts["key"],
                read["points"],
                read["vectors"],
                read["kept"],
                facts["total"],
                tuple(facts["parts"]),
                read.get("explained"),
                tuple(facts["words"]),
                facts["note"],
                facts["spacing"],
                facts["limit"],
                *(read.get(name, none) for name in ("mean", "axes", "offset")),
            )
        except Exception as error:  # safetensors' own error is none of Python's
            raise WorkbenchError(
                f"{path} is not a readable map ({error}); delete it to have it made anew"
            ) from None

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self.vectors)

    @cached_property
    def _worded(self) -> tuple[list[str], Reference] | None:
        """The words that there are, and the rows that have one."""
        have = [i for i, word in enumerate(self.words) if word]
        return ([self.words[i] for i in have], Reference(self.vectors[have])) if have else None

    @property
    def _company(self) -> int:
        """Rows by which a vector is placed; one more must be left."""
        return min(self.config.neighbours, len(self.points) - 1)

    def _project(self, flat: Floats) -> Floats:
        return np.asarray((flat - self.mean) @ self.axes.T + self.offset, np.float32)

    def _between(self, row: Ints, distance: NDArray[np.float64]) -> Floats:
        """(n, k + 1) nearest rows and their distances, to (n, k) points."""
        reach, near = distance[:, -1:], distance[:, :-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.square((reach - near) / (reach * near))
        weight = np.where(near[:, :1] == 0, near == 0, weight)  # on a row
        weight = np.where(weight.sum(1, keepdims=True) > 0, weight, 1)  # all just as far
        weight /= weight.sum(1, keepdims=True)
        return np.einsum("nk,nkd->nd", weight, self.points[row[:, :-1]]).astype(np.float32)


def fit_projection(
    vectors: ArrayLike,
    config: ProjectionConfig | None = None,
    key: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    words: Sequence[str] | None = None,
    parts: Sequence[int] | None = None,
    after: Projection | None = None,
    allow_alike: bool = False,
) -> Projection:
    """Fits a map to (n, d) vectors, or takes it from the cache.

    Args:
        vectors: the rows, finite; of more than `config.most` as many are drawn.
        config: the settings; PCA to a plane unless told otherwise.
        key: what these vectors are, in what JSON can hold (which backbone, which layer, which tasks).
        cache: a folder with one file for each map. A map is taken from there only if key, settings and every number of
            the data are the same; one that cannot be read is made anew.
        words: texts of the first rows, such as the vocabulary's before the prompts'; the rest have none.
        parts: how many rows belong to each part (vocabulary, prior, …), in order. Large parts are thinned first: twenty
            vectors of a prior stay whole beside 100,000 words.
        after: a map of the same rows in another space, such as the layer before. UMAP starts from its places instead of
            PCA's, so that where each group lies stays as it was; `align` then turns the one to the other. PCA leaves
            nothing to chance, and t-SNE shrinks its start so much that it forgot a map more often than not; a map of
            rows that are all the same has no places to start from, and is left aside.
        allow_alike: rows that are all the same are put at one place, zero on every axis, instead of refused; the map's
            note says so. Such a map takes no time, so the cache does not keep it.

    The sign of each PCA axis is fixed (its largest entry is positive); UMAP and t-SNE start from PCA (Kobak and
    Linderman 2021), so two fits look the same way round. Of copies of so few vectors that PCA keeps all their distances,
    such as three in a plane, the places are PCA's: UMAP would mix them. UMAP is seeded, for which its layout gives up all
    threads but one.

    Raises:
        WorkbenchError: rows that are no table, not finite, all the same, or too few or too narrow for the map; or a map
            to start from that has other rows.
    """
    config = config or ProjectionConfig()
    given = _checked(vectors, config)
    sizes = tuple(parts) if parts is not None else (len(given),)
    if sum(sizes) != len(given) or min(sizes, default=0) < 0:
        raise WorkbenchError(
            f"the parts {list(sizes)} do not add up to the {len(given)} rows; give each row a part"
        )
    if words is not None and len(words) > len(given):
        raise WorkbenchError(f"{len(words)} words were given for {len(given)} rows; give at most one a row")
    start = after if config.kind == "umap" and after is not None and not after.alike else None
    kept = _thinned(sizes, config)
    alike = _different((given[row] for row in kept), 1) == 1
    if alike and not allow_alike:
        raise WorkbenchError(f"all {len(kept)} vectors are the same; there is nothing to map")
    whole = _whole_key(given, config, key, sizes)
    if start is not None:
        whole["after"] = _digest(start.key)
    file = None if cache is None or alike else Path(cache) / f"{config.kind}-{_digest(whole)}.safetensors"
    texts = () if words is None else tuple(words[i] if i < len(words) else "" for i in kept)
    if file is not None and file.exists():
        try:
            found = Projection.load(file, given)
            if found.key == whole:
                return replace(found, config=config, words=texts)
        except WorkbenchError:
            pass  # damaged, or of another version
    if start is not None and not (
        np.array_equal(start.kept, kept) and start.points.shape[1] == config.dimensions
    ):
        raise WorkbenchError(
            "a map can start from one of the same rows and dimensions only; fit both to the same rows"
        )
    made = (
        _at_one_place(given, config, kept, sizes, whole)
        if alike
        else _fit(given, config, kept, sizes, whole, start)
    )
    made = replace(made, words=texts)
    if file is not None:
        made.save(file, vectors=False)  # the caller has them, and the key holds that they are the same
    return made


def align(projection: Projection, reference: Projection) -> Projection:
    """`projection` turned, mirrored and moved so that its points lie as near as can be to `reference`'s.

    Orthogonal Procrustes (Schönemann 1966) on the rows that both fitted: row i of one must be the same thing as row i of
    the other, such as the same token in another layer. Nothing is scaled, so distances stay what they were: where the
    layers' vectors grow, so does the map.

    Raises:
        WorkbenchError: maps of other dimensions, of other rows, or with too few rows in common.
    """
    if projection.points.shape[1] != reference.points.shape[1] or projection.parts != reference.parts:
        raise WorkbenchError(
            f"a map of {list(projection.parts)} rows in {projection.points.shape[1]} dimensions cannot be aligned with one "
            f"of {list(reference.parts)} in {reference.points.shape[1]}; fit both to the same rows"
        )
    _, mine, theirs = np.intersect1d(projection.kept, reference.kept, return_indices=True)
    if len(mine) <= projection.points.shape[1]:
        raise WorkbenchError(
            f"the two maps have {len(mine)} rows in common; fit both with the same seed, or to fewer rows"
        )
    ours, their = projection.points[mine].astype(np.float64), reference.points[theirs].astype(np.float64)
    here, there = ours.mean(0), their.mean(0)
    left, _, right = np.linalg.svd((ours - here).T @ (their - there))
    turn = left @ right
    moved = ((projection.points - here) @ turn + there).astype(np.float32)
    if not projection.linear:
        return replace(projection, points=moved)
    assert projection.explained is not None
    return replace(
        projection,
        points=moved,
        axes=(turn.T @ projection.axes).astype(np.float32),
        offset=((projection.offset - here) @ turn + there).astype(np.float32),
        # along the old axes the fitted rows are uncorrelated, so shares mix by the squares of the cosines
        explained=(np.square(turn).T @ projection.explained).astype(np.float32),
    )


def _checked(vectors: ArrayLike, config: ProjectionConfig) -> Floats:
    given = np.asarray(vectors)
    if given.ndim != 2:
        raise WorkbenchError(f"vectors of shape {given.shape} are no table; give (n, d)")
    given = np.ascontiguousarray(given, np.float32)
    count, width = given.shape
    if count <= config.dimensions + 1 or width < config.dimensions:
        raise WorkbenchError(
            f"{count} vectors of width {width} are too few or too narrow for a map of {config.dimensions} dimensions; "
            f"give at least {config.dimensions + 2} of width {config.dimensions} or more"
        )
    finite = np.isfinite(given).all(axis=1)
    if not finite.all():
        raise WorkbenchError(f"row {int(finite.argmin())} of the vectors is not finite; leave such rows out")
    return given


def _different(rows: Iterable[Floats], most: int) -> int:
    """How many different rows (d,) there are; one more than `most` where there are more, known soon in most tables."""
    seen: list[Floats] = []
    for row in rows:
        if not any(np.array_equal(row, one) for one in seen):
            seen.append(row)
            if len(seen) > most:
                break
    return len(seen)


def _thinned(sizes: Sequence[int], config: ProjectionConfig) -> Ints:
    """Which rows are fitted: every part whole, or as many of each as there is room for, smaller parts first."""
    dice, room, left = np.random.default_rng(config.seed), config.most, len(sizes)
    taken: dict[int, Ints] = {}
    for number in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        take = min(sizes[number], room // left)
        rows = np.arange(sizes[number])
        taken[number] = rows if take == len(rows) else np.sort(dice.choice(rows, take, replace=False))
        room, left = room - take, left - 1
    starts = np.cumsum([0, *sizes])
    return np.concatenate([taken[number] + starts[number] for number in range(len(sizes))]).astype(np.int64)


def _whole_key(
    given: Floats, config: ProjectionConfig, key: Mapping[str, Any] | None, sizes: Sequence[int]
) -> dict[str, Any]:
    """The one explicit key, as JSON gives it back."""
    data = {
        "shape": given.shape,
        "parts": sizes,
        "hash": hashlib.blake2b(given.data, digest_size=16).hexdigest(),
    }
    whole = {"of": dict(key or {}), "settings": config.read(), "data": data, "version": VERSION}
    try:
        read: dict[str, Any] = json.loads(json.dumps(whole, sort_keys=True))
    except TypeError as error:
        raise WorkbenchError(
            f"the key of a map holds what JSON cannot ({error}); give text and numbers"
        ) from None
    return read


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]


def _fit(
    given: Floats,
    config: ProjectionConfig,
    kept: Ints,
    sizes: tuple[int, ...],
    key: Mapping[str, Any],
    start: Projection | None,
) -> Projection:
    rows = given if len(kept) == len(given) else given[kept]
    count, width = rows.shape
    said = [f"{count:,} of {len(given):,} rows"] if count < len(given) else []
    reduced = config.kind != "pca" and width > config.reduce
    directions = min(config.reduce if reduced else config.dimensions, count)
    mean, axes, shares = _main_directions(rows, directions, config.seed)
    main = np.asarray((rows - mean) @ axes.T, np.float32)
    none = np.zeros(0, np.float32)
    linear: dict[str, Any] = {"explained": None, "mean": none, "axes": none, "offset": none}
    if config.kind == "pca":
        points = main
        linear = {"explained": shares, "mean": mean, "axes": axes, "offset": np.zeros(len(axes), np.float32)}
    elif (different := _different(rows, config.dimensions + 1)) <= config.dimensions + 1:
        points = np.ascontiguousarray(main[:, : config.dimensions])  # where all distances are right
        said.append(f"{different} different vectors, placed as by PCA")
    else:
        if reduced:
            said.append(f"{directions:,} of {width:,} directions keep {shares.sum():.0%} of the variance")
        if config.kind == "umap" and count <= config.neighbours:
            said.append(f"{count - 1} neighbours, all that there are")
        points = (_umap if config.kind == "umap" else _tsne)(
            main if reduced else np.asarray(rows - mean, np.float32),
            _spread(main[:, : config.dimensions] if start is None else start.points, config.seed),
            config,
        )
    spacing, limit = _spacing(rows, config.seed)
    return Projection(
        config, key, points, rows, kept, len(given), sizes,
        words=(), note="; ".join(said), spacing=spacing, limit=limit, **linear,
    )  # fmt: skip


def _at_one_place(
    given: Floats, config: ProjectionConfig, kept: Ints, sizes: tuple[int, ...], key: Mapping[str, Any]
) -> Projection:
    """The map of rows that are all the same: whatever is placed on it is at zero, and off it unless it is that row too."""
    rows, none = given[kept], np.zeros(0, np.float32)
    said = [f"{len(kept):,} of {len(given):,} rows"] if len(kept) < len(given) else []
    linear: dict[str, Any] = {"explained": None, "mean": none, "axes": none, "offset": none}
    if config.kind == "pca":
        zero, axes = (
            np.zeros(size, np.float32) for size in (config.dimensions, (config.dimensions, len(rows[0])))
        )
        linear = {"explained": zero, "mean": rows[0], "axes": axes, "offset": zero}
    return Projection(
        config, key, np.zeros((len(rows), config.dimensions), np.float32), rows, kept, len(given), sizes,
        words=(), note="; ".join([*said, "all vectors are the same"]), spacing=1.0, limit=0.0, **linear,
    )  # fmt: skip


def _main_directions(rows: Floats, count: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """PCA: mean (d,), directions (count, d) and their shares of the variance (count,).

    scikit-learn fixes the signs.
    """
    from sklearn.decomposition import PCA  # takes a second, and a kept map does without it

    pca = PCA(count, random_state=seed).fit(rows)
    mean, axes, shares = (
        np.ascontiguousarray(a, np.float32)
        for a in (pca.mean_, pca.components_, pca.explained_variance_ratio_)
    )
    return mean, axes, shares


def _spread(start: Floats, seed: int) -> Floats:
    """(m, k) places to start from; a seeded jitter sets them apart where they lie on a line, or are hardly more than one.

    umap-learn divides by the spread of every axis, t-SNE by that of the first; and what starts at one place is set apart
    by chance alone. An axis without spread, or with what is not finite, is left out, and is jitter then.
    """
    finite = np.isfinite(start).all(axis=0)
    wide = np.ptp(np.where(finite, start, 0), axis=0)
    flat = wide <= FLAT * wide.max()
    few = start.shape[1] + 1
    if not flat.any() and _different(start, few) > few:
        return start
    jitter = np.random.default_rng(seed).normal(size=start.shape) * (JITTER * wide.max() or 1.0)
    return (np.where(flat, 0, start) + jitter).astype(np.float32)


def _umap(rows: Floats, start: Floats, config: ProjectionConfig) -> Floats:
    """McInnes, Healy and Melville 2018, by umap-learn's own functions on exact neighbours.

    umap-learn's class looks for neighbours by chance, which takes longer than finding all of them, and cannot be told
    of others without a warning.
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(config.neighbours, len(rows) - 1)
    apart, index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(rows).kneighbors(rows)
    with _UMAP_IN_USE:
        from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

        dice = np.random.RandomState(config.seed)
        graph, _, _ = fuzzy_simplicial_set(
            rows, count, dice, "euclidean", knn_indices=index, knn_dists=apart.astype(np.float32)
        )
        a, b = find_ab_params(1.0, 0.1)
        points, _ = simplicial_set_embedding(
            rows, graph, config.dimensions, initial_alpha=1.0, a=a, b=b, gamma=1.0, negative_sample_rate=5,
            n_epochs=None, init=start, random_state=dice, metric="euclidean", metric_kwds={}, densmap=False,
            densmap_kwds={}, output_dens=False,
        )  # fmt: skip
    return np.ascontiguousarray(points, np.float32)


def _tsne(rows: Floats, start: Floats, config: ProjectionConfig) -> Floats:
    """van der Maaten and Hinton 2008, by scikit-learn; it starts as small as scikit-learn has it start from PCA."""
    from sklearn.manifold import TSNE

    perplexity = min(config.perplexity, (len(rows) - 1) / 3)
    small = start / np.std(start[:, 0]) * 1e-4
    fitted = TSNE(config.dimensions, perplexity=perplexity, init=small, random_state=config.seed)
    return np.ascontiguousarray(fitted.fit_transform(rows), np.float32)


def _spacing(rows: Floats, seed: int) -> tuple[float, float]:
    """The unit of distances, and the limit in it, both from at most `SAMPLED` rows, each against all others."""
    asked = rows
    if len(rows) > SAMPLED:
        asked = rows[np.sort(np.random.default_rng(seed).choice(len(rows), SAMPLED, replace=False))]
    alone = Reference(rows).nearest(asked, 2).distance[:, 1]  # the nearest is the row itself, or a copy of it
    apart = alone[alone > 0]
    spacing = float(np.median(apart)) if len(apart) else 1.0
    return spacing, float(np.quantile(alone, OFF_MAP)) / spacing
