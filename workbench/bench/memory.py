"""How much memory a piece of work needs at its highest point. Counts what torch allocates, not what the process holds."""

from __future__ import annotations

import gc
from collections.abc import Callable

MEMORY_EVENT = (
    "[memory]"  # what torch's profiler calls each allocation, and each release with a negative size
)


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes that torch holds at the highest point of `work()`, beyond those that it held before.

    Where a GPU is in use, those of the current GPU, from its allocator's own count. Elsewhere those of the CPU: the
    running sum of every allocation and release that the profiler sees, temporaries inside operations among them, exact
    to the byte and the same in every run. Call `work` once before: what it makes on its first call and keeps counts
    as well, and on the CPU memory from before the call that `work` gives back is not seen to go.

    >>> import torch
    >>> def work():
    ...     first = torch.empty(1000, dtype=torch.uint8)
    ...     del first
    ...     return torch.empty(600, dtype=torch.uint8)
    >>> peak_memory(work)
    1000
    """
    import torch
    from torch.autograd.profiler import profile

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(use_kineto=True, profile_memory=True) as seen:
        work()
    assert seen.kineto_results is not None
    now = peak = 0
    for event in seen.kineto_results.events():  # in order of time
        if event.name() == MEMORY_EVENT:
            now += event.nbytes()
            peak = max(peak, now)
    return peak
