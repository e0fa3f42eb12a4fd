"""A UMAP map of wide vectors: ours, reduced and with exact neighbours, beside umap-learn on the vectors as they are.

Times only. `python -m workbench.bench.maps` prints what one large map takes, the first in its process and the second.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.projection import ProjectionConfig, fit_projection
from workbench.bench.harness import Measurement, row

WIDTH = 2048
ROWS = 15_000  # above 4,096 umap-learn looks for neighbours by chance, above 10,000 its layout takes fewer rounds
LARGE = 30_000
JUDGED = 3000
GROUPS = 40

#: How much less of the vectors' neighbourhoods our map may keep than the peer's.
TOLERANCE = 0.01


@row("umap map")
def umap_map() -> Sequence[Measurement]:
    """Beside umap-learn with the same seed and settings, and, as a variant, without a seed on all threads."""
    from umap import UMAP

    vectors = activations(ROWS)
    config = ProjectionConfig("umap")

    def ours() -> NDArray[Any]:
        return fit_projection(vectors, config).points

    def peer(**settings: Any) -> NDArray[Any]:
        return np.asarray(UMAP(config.neighbours, **settings).fit_transform(vectors))

    def check() -> None:
        mine, theirs = kept(vectors, ours()), kept(vectors, peer(random_state=config.seed, n_jobs=1))
        assert mine >= theirs - TOLERANCE, f"trustworthiness {mine:.3f}, the peer's {theirs:.3f}"

    notes = (
        f"{ROWS} vectors of width {WIDTH}; ours: {config.reduce} main directions first, exact neighbours, and all "
        "distances that tell what is off the map; peer: umap-learn, seeded, on the vectors as they are; both compiled "
        "before, and both maps just as trustworthy; memory is torch's, and neither uses it"
    )
    variants = {"umap-learn, unseeded, all threads": lambda: peer(n_jobs=-1)}
    return [
        Measurement(
            "umap map",
            ours,
            lambda: peer(random_state=config.seed, n_jobs=1),
            unit="s",
            check=check,
            samples=3,
            notes=notes,
            variants=variants,
        )
    ]


def activations(count: int, width: int = WIDTH, seed: int = 0) -> NDArray[np.float32]:
    """(count, width) made like activations: groups, and variance that falls off as a power of the direction's number."""
    dice = np.random.default_rng(seed)
    spread = (1 / np.sqrt(1 + np.arange(width))).astype(np.float32)
    middles = 2 * dice.normal(size=(GROUPS, width)).astype(np.float32)
    noise = dice.normal(size=(count, width)).astype(np.float32)
    return np.asarray((middles[dice.integers(0, GROUPS, count)] + noise) * spread, np.float32)


def kept(vectors: NDArray[Any], points: NDArray[Any]) -> float:
    """How many of the neighbours on the map are neighbours of the vectors; 1 for all (Venna and Kaski 2001).

    Asked among the first `JUDGED` rows, which are no different from the others.
    """
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(vectors[:JUDGED], points[:JUDGED], n_neighbors=15))


def main() -> None:
    """Two maps of one size, timed."""
    parser = argparse.ArgumentParser(prog="python -m workbench.bench.maps", description=__doc__)
    parser.add_argument("--rows", type=int, default=LARGE)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--kind", default="umap", choices=("pca", "umap", "tsne"))
    asked = parser.parse_args()
    vectors = activations(asked.rows, asked.width)
    config = ProjectionConfig(asked.kind)
    print(f"{asked.kind} map of {asked.rows:,} vectors of width {asked.width:,}, {os.cpu_count()} cores")
    for name in ("first", "second"):
        start, work = time.perf_counter(), time.process_time()
        fitted = fit_projection(vectors, config)
        seconds, work = time.perf_counter() - start, time.process_time() - work
        load = os.getloadavg()[0]
        print(
            f"{name}: {seconds:.1f} s, {work:.1f} s of processor time, load {load:.1f}; {fitted.note}",
            flush=True,
        )


if __name__ == "__main__":
    main()
