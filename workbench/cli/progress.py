"""The progress bar: rate, loss and time left on stderr. Draws; knows nothing of what goes on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar over numbered steps, used in a `with`; a resumed run starts where its first step says."""

    def __init__(self, steps: int):
        live = sys.stderr.isatty()
        self.index = 0
        self.bar = tqdm(
            total=steps, unit="step", file=sys.stderr, dynamic_ncols=live, mininterval=0.1 if live else 10
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.bar.close()

    def step(self, index: int, loss: float, looked: Mapping[str, float] | None = None) -> None:
        """Step `index` (1 for the first) is done; `looked` are measurements that get a line of their own."""
        if not self.index:
            self.bar.initial = self.bar.n = self.bar.last_print_n = (
                index - 1
            )  # the rate counts this part's steps only
            self.index = index - 1
        self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self.bar.update(index - self.index)
        self.index = index
        if looked:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in looked.items())
            self.bar.write(f"step {index}: {shown}", file=sys.stderr)
