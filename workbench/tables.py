"""Tables as text, for a terminal. Formats; never measures, sorts or prints."""

from __future__ import annotations

from collections.abc import Sequence


def table(lines: Sequence[Sequence[str]], right: bool = False) -> str:
    """Columns of equal width, the first line being the heads; `right` sets all but the first flush right.

    >>> print(table([("work", "ours"), ("step", "1.5 ms")], right=True))
    work    ours
    step  1.5 ms
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for first, *rest in lines:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width in zip(rest, widths[1:], strict=True)
        ]
        rows.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(rows)
