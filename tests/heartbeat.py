"""How long a kernel's event loop was held up: for tests, imported in the kernel. Measures, and judges nothing."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

PULSE = 0.01


class Heartbeat:
    """Writes a line to `path` for each time that the loop came back later than it was asked to: [clock, seconds].

    Only what takes longer than `least` is written. The clock is `time.time()`, at the end of the delay.
    """

    def __init__(self, path: Path, least: float = 0.02) -> None:
        self.path, self.least, self.beats = Path(path), least, 0
        self._task = asyncio.get_running_loop().create_task(self._beat())

    async def _beat(self) -> None:
        with self.path.open("a", buffering=1) as lines:
            while True:
                begun = time.perf_counter()
                await asyncio.sleep(PULSE)
                late = time.perf_counter() - begun - PULSE
                self.beats += 1
                if late > self.least:
                    lines.write(json.dumps([time.time(), late]) + "\n")
                if self.beats % 100 == 0:  # a sign of life: no line would also be what a dead heart writes
                    lines.write(json.dumps([time.time(), 0.0]) + "\n")


def held_up(path: Path, since: float) -> tuple[float, int]:
    """The longest delay since a time, and the number of lines since then, of which there is one a second at least."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    late = [seconds for clock, seconds in lines if clock >= since]
    return max(late, default=0.0), len(late)
