"""What a synthetic gradient does to the weights, in numbers: how much, in which directions, how near to the true gradient.

    change_table(method, rows)        # a row a matrix: its norm, its cosine to the true gradient
    spectra(method, rows)             # a row a singular value
    change_gram(method, rows)         # (n, n) inner products between the changes that n prompts make
    coordinates(gram)                 # the same as vectors whose distances are those of the changes

A change is kept as factors, and no whole change of a prompt is ever written out, only a few rows of each matrix at a time.
Tensors in, arrays and tables out; it trains and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from workbench.backbones.linear_outputs import LowRank
from workbench.errors import WorkbenchError
from workbench.methods.apply import check_context
from workbench.methods.prompt_gradient import cosine, inner, singular_values, true_gradient
from workbench.methods.rows import Rows
from workbench.tasks.encode import encode_question

if TYPE_CHECKING:
    from workbench.methods.synthetic_gradient import SyntheticGradient

Floats = NDArray[np.float64]

_NUMBERS = 1 << 24
"""Entries of changes that are written out at once."""
_AT_ONCE = 32
"""Prompts read at once."""


def prompt_rows(method: SyntheticGradient, prompts: Sequence[str]) -> Rows:
    """The prompts as rows without an answer, encoded as the method's text settings say.

    Raises:
        WorkbenchError: no prompts, or one that is longer than the context.
    """
    if not prompts:
        raise WorkbenchError("there are no prompts to change weights by; give at least one")
    encoded = [encode_question(p, method.view.tokenizer, method.text) for p in prompts]
    check_context(method.view, max(len(row.ids) for row in encoded), 0)
    return Rows.collate(encoded, method.view.device)


@torch.no_grad()
def change_table(method: SyntheticGradient, rows: Rows) -> pd.DataFrame:
    """A row for each prompt and matrix: prompt (from 0), layer, matrix, norm, relative, cosine.

    norm is Frobenius', relative the norm over that of the matrix itself, cosine that to a step along the true gradient of the
    prompt's loss (1: the same direction; 0 where one of them is nothing).
    """
    made = method.changes(rows)
    true = true_gradient(method.view, method.writers, rows)
    parts = []
    for writer in method.writers:
        change = made[writer.name]
        norm = inner(change, change).clamp(min=0).sqrt().double().cpu().numpy()
        weight = float(method.view.model.get_submodule(writer.name).weight.double().norm())
        parts.append(
            pd.DataFrame(
                {
                    "prompt": np.arange(len(rows)),
                    "layer": writer.layer,
                    "matrix": writer.within,
                    "norm": norm,
                    "relative": norm / weight,
                    "cosine": cosine(change, true[writer.name]).double().cpu().numpy(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def spectra(method: SyntheticGradient, rows: Rows) -> pd.DataFrame:
    """A row for each singular value of each change: prompt, layer, matrix, number (from 1, the largest), value; zeros are left out."""
    made = method.changes(rows)
    parts = []
    for writer in method.writers:
        values = singular_values(made[writer.name]).double().cpu().numpy()
        row, at = (values > values.max(1, keepdims=True) * 1e-6).nonzero()
        parts.append(
            pd.DataFrame(
                {
                    "prompt": row,
                    "layer": writer.layer,
                    "matrix": writer.within,
                    "number": at + 1,
                    "value": values[row, at],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def change_gram(method: SyntheticGradient, rows: Rows, unit: bool = True) -> Floats:
    """(n, n) inner products between the whole changes of n prompts, all matrices as one vector.

    unit: each change is divided by its norm, so that what counts is where it points; one that is nothing stays nothing.
    """
    made = [
        method.changes(rows.select(torch.arange(at, min(at + _AT_ONCE, len(rows)), device=rows.ids.device)))
        for at in range(0, len(rows), _AT_ONCE)
    ]
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for writer in method.writers:
        gram += _gram([part[writer.name] for part in made])
    if unit:
        size = gram.diagonal().clamp(min=0).sqrt()
        size = torch.where(size > 0, size, 1.0)
        gram = gram / size[:, None] / size
    found: Floats = gram.numpy()
    return found


def _gram(parts: Sequence[LowRank]) -> torch.Tensor:
    """(n, n) of one matrix, some of its rows after others."""
    out, inputs = parts[0].up.shape[1], parts[0].down.shape[2]
    count = sum(len(part.up) for part in parts)
    gram = torch.zeros(count, count, dtype=torch.float64)
    few = max(1, _NUMBERS // (count * inputs))
    for at in range(0, out, few):
        rows = torch.cat([(part.up[:, at : at + few] @ part.down).flatten(1) for part in parts])
        gram += (rows @ rows.T).double().cpu()
    return gram


def coordinates(gram: Floats) -> Floats:
    """(n, d) centred vectors with the distances that (n, n) inner products stand for, the widest direction first.

    Torgerson 1952, classical scaling: nothing of the distances is lost, as all directions above rounding are kept.

    Raises:
        WorkbenchError: all prompts make the same change.
    """
    centred = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    kept = values > max(float(values[-1]) * 1e-9, 1e-12)
    if not kept.any():
        raise WorkbenchError(
            "all these prompts change the weights in the same way; give prompts that differ, or train the synthesiser"
        )
    found: Floats = (vectors[:, kept] * np.sqrt(values[kept]))[:, ::-1]
    return found
