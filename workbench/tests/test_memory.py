"""The measure of peak memory: right on patterns of allocation whose peak is known."""

from __future__ import annotations

import pytest
import torch

from workbench.bench.memory import peak_memory

KIB = 1024


def block(size: int) -> torch.Tensor:
    return torch.empty(size * KIB, dtype=torch.uint8)


def test_the_highest_point_counts() -> None:
    """100, then 150, then 50 + 70: what was given back before does not count, nor does the order of what follows."""

    def work() -> None:
        first = block(100)
        second = block(50)
        del first
        third = block(70)
        del second, third
        block(20)

    assert peak_memory(work) == 150 * KIB
    assert peak_memory(work) == 150 * KIB, "the same in every run"


def test_what_was_there_before_does_not_count() -> None:
    """Memory that others hold is not the work's own, and what the work keeps is counted once."""
    held = [block(500)]
    assert peak_memory(lambda: held.append(block(40))) == 40 * KIB
    assert peak_memory(lambda: block(10)) == 10 * KIB
    assert peak_memory(lambda: None) == 0


def test_operations_and_the_backward_pass_count() -> None:
    """What is kept for the gradient and temporaries inside an operation: each of known size."""
    x = torch.ones(64, 64, requires_grad=True)
    size = x.numel() * x.element_size()
    assert peak_memory(lambda: x.detach().exp()) == size
    assert peak_memory(lambda: x.detach().exp().exp_().exp()) == 2 * size
    assert peak_memory(lambda: x.detach().exp().exp().exp()) == 2 * size, (
        "without gradients the first is let go"
    )
    assert peak_memory(lambda: x.exp().exp().exp()) == 3 * size, "with them all three are kept"
    # three kept, and the gradient of one while the next is made from it
    backward = peak_memory(lambda: torch.autograd.grad(x.exp().exp().exp().sum(), x))
    assert 4 * size <= backward <= 5 * size + KIB


def test_an_error_passes_and_the_next_measurement_is_right() -> None:
    """Work that fails is not swallowed, and nothing is left running."""

    def fail() -> None:
        block(30)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        peak_memory(fail)
    assert peak_memory(lambda: block(10)) == 10 * KIB
