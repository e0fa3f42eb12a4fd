"""A fixed plane to watch embeddings move in: the two main directions of the vocabulary. Arrays in, arrays out.

The plane is fitted once, on the vocabulary and the prompt's first vectors, and later vectors are placed in it:
were it fitted anew at every step, a point could seem to move because the plane did. It never draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.errors import WorkbenchError

#: Changes when a saved frame would no longer be read the same way.
VERSION = 1


@dataclass(frozen=True)
class Frame:
    """A plane through the embedding space, and the vocabulary in it.

    Shapes: d is the width of the embeddings, M the number of words kept.
    """

    mean: NDArray[np.float32]
    """(d,) the point that the plane goes through."""
    axes: NDArray[np.float32]
    """(2, d) its two directions, orthonormal."""
    explained: NDArray[np.float32]
    """(2,) share of the vocabulary's variance along each."""
    words: tuple[str, ...]
    """M words, as the tokenizer writes them."""
    vocabulary: NDArray[np.float32]
    """(M, d) the embeddings of those words."""
    total: int
    """Words in the whole vocabulary; more than M when it was thinned."""

    def place(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """(…, d) vectors to (…, 2) coordinates in the plane."""
        return np.asarray((np.asarray(vectors, np.float32) - self.mean) @ self.axes.T, np.float32)

    def distance(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """(…, d) vectors to (…,) how far each lies off the plane, in the embeddings' own unit."""
        centred = np.asarray(vectors, np.float32) - self.mean
        inside = (centred @ self.axes.T) @ self.axes
        return np.asarray(np.linalg.norm(centred - inside, axis=-1), np.float32)

    def share_seen(self, before: ArrayLike, after: ArrayLike) -> float:
        """The share of a movement (squared length, summed over vectors) that the plane shows; 1.0 for none."""
        moved = np.asarray(after, np.float32) - np.asarray(before, np.float32)
        whole = float((moved**2).sum())
        return float(((moved @ self.axes.T) ** 2).sum()) / whole if whole > 0 else 1.0

    def nearest(self, vectors: ArrayLike) -> list[str]:
        """The kept word with the highest cosine to each of (P, d) vectors."""
        vectors = np.asarray(vectors, np.float32)
        lengths = np.linalg.norm(self.vocabulary, axis=1)
        cosine = (vectors @ self.vocabulary.T) / np.maximum(lengths, 1e-12)
        return [self.words[i] for i in cosine.argmax(axis=1)]

    def save(self, path: str | Path) -> None:
        """Writes the frame as safetensors, whole or not at all."""
        from safetensors.numpy import save_file

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = np.frombuffer("\n".join(w.replace("\n", "⏎") for w in self.words).encode(), np.uint8)
        tensors: dict[str, NDArray[Any]] = {"mean": self.mean, "axes": self.axes, "explained": self.explained}
        tensors |= {"vocabulary": self.vocabulary, "words": text, "total": np.array([self.total])}
        part = path.with_suffix(".part")
        save_file(tensors, part, metadata={"version": str(VERSION)})
        part.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Frame:
        """Reads what `save` wrote; WorkbenchError when the file is not such a frame."""
        from safetensors import safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                if (file.metadata() or {}).get("version") != str(VERSION):
                    raise WorkbenchError(
                        f"{path} holds a frame of another version; delete it to have it made anew"
                    )
                read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            words = tuple(read["words"].tobytes().decode().split("\n"))
            total = int(read["total"][0])
            return cls(read["mean"], read["axes"], read["explained"], words, read["vocabulary"], total)
        except WorkbenchError:
            raise
        except Exception as error:  # safetensors' own error is none of Python's
            raise WorkbenchError(
                f"{path} is not a readable frame ({error}); delete it to have it made anew"
            ) from None


def fit_frame(
    vocabulary: ArrayLike, words: tuple[str, ...], prior: ArrayLike, keep: int = 4096, seed: int = 0
) -> Frame:
    """Fits the plane on the vocabulary (V, d) and the prompt's first vectors (P, d).

    A vocabulary of more than `keep` words is thinned to `keep` of them, drawn with `seed`; the fit uses those.
    The sign of each axis is fixed (its largest entry is positive), so that two fits look the same way up.
    """
    from sklearn.decomposition import PCA  # takes a second, and a saved frame does without it

    vocabulary, prior = np.asarray(vocabulary, np.float32), np.asarray(prior, np.float32)
    if vocabulary.ndim != 2 or len(vocabulary) != len(words):
        raise ValueError(f"{len(words)} words for a vocabulary of shape {vocabulary.shape}")
    total = len(words)
    if total > keep:
        chosen = np.sort(np.random.default_rng(seed).choice(total, keep, replace=False))
        vocabulary, words = vocabulary[chosen], tuple(words[i] for i in chosen)
    pca = PCA(2, svd_solver="full" if vocabulary.shape[1] <= 512 else "randomized", random_state=seed)
    pca.fit(np.concatenate([vocabulary, prior]))
    axes = pca.components_
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    numbers = (np.ascontiguousarray(a, np.float32) for a in (pca.mean_, axes, pca.explained_variance_ratio_))
    mean, axes, explained = numbers
    return Frame(mean, axes, explained, tuple(words), np.ascontiguousarray(vocabulary), total)
