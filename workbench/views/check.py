"""What would be hard to read in a figure, found from the figure alone. Draws nothing and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import plotly.graph_objects as go

#: Letters in a figure are not smaller, in pixels.
SMALLEST = 11
#: The least contrast of a line to its paper (WCAG 2.2, 1.4.11).
FAINTEST = 3.0


def contrast(one: str, other: str) -> float:
    """Contrast of two colours "#rrggbb", 1 to 21 (WCAG 2.2, "contrast ratio")."""

    def luminance(colour: str) -> float:
        parts = [c / 255 for c in _rgb(colour)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def check_figure(figure: go.Figure, width: int = 900) -> list[str]:
    """What would be hard to read in a figure, one sentence each; empty where nothing is found.

    Looked for: an axis without a title; letters smaller than `SMALLEST`; lines fainter than `FAINTEST`; a title or
    legend that lies on the data; a title, legend or note that overlaps another or is cut off at the figure's edge; an
    axis title longer than its axis. Whether a title names its unit no function can tell. Lengths of text are estimates,
    and what axes need beyond the margins is not known here.

    Args:
        figure: as a view draws it.
        width: pixels of a figure that does not say its own width.
    """
    layout = _layout(figure)
    return [
        *_untitled(figure, layout),
        *(f"{where} has letters of {size:g} px" for where, size in _letters(figure) if size < SMALLEST),
        *_faint(figure, layout),
        *_crowded(figure, layout, width),
    ]


def _layout(figure: go.Figure) -> dict[str, Any]:
    """The layout with what the template adds to it."""
    own = figure.layout.to_plotly_json()
    base = (own.pop("template", None) or {}).get("layout", {})
    numbered = {name: base.get(name[:5], {}) for name in own if re.fullmatch(r"[xy]axis\d+", name)}
    return _over({**base, **numbered}, own)


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _over(base[k], v) for k, v in own.items() if isinstance(v, dict) and isinstance(base.get(k), dict)
    }
    return {**base, **own, **both}


def _axes(figure: go.Figure, layout: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The axes that show their numbers, of the traces that have axes."""
    found: dict[str, dict[str, Any]] = {}
    for trace in figure.data:
        if "scene" in trace:
            scene = trace.scene or "scene"
            found |= {f"{scene}.{s}axis": layout.get(scene, {}).get(f"{s}axis", {}) for s in "xyz"}
        elif "xaxis" in trace:
            names = [f"{s}axis{(trace[f'{s}axis'] or s)[1:]}" for s in "xy"]
            found |= {name: layout.get(name, layout.get(name[:5], {})) for name in names}
    shown = {n: a for n, a in found.items() if a.get("visible", True) and a.get("showticklabels", True)}
    return dict(sorted(shown.items()))


def _untitled(figure: go.Figure, layout: dict[str, Any]) -> Iterator[str]:
    for name, axis in _axes(figure, layout).items():
        if not axis.get("title", {}).get("text"):
            yield f"{name} has no title"


def _letters(figure: go.Figure) -> Iterator[tuple[str, float]]:
    """Every size of letters that a figure sets, and where."""

    def walk(part: Any, at: str) -> Iterator[tuple[str, float]]:
        if isinstance(part, dict):
            for name, value in part.items():
                if name == "size" and at.endswith("font") and isinstance(value, int | float):
                    yield at, value
                yield from walk(value, f"{at}.{name}".strip("."))
        elif isinstance(part, list | tuple) and part and isinstance(part[0], dict):
            for number, value in enumerate(part):
                yield from walk(value, f"{at}[{number}]")
        elif isinstance(part, str):
            for size in re.findall(r"font-size:\s*([\d.]+)px", part):
                yield at, float(size)

    yield from walk(figure.layout.to_plotly_json(), "layout")
    for number, trace in enumerate(figure.data):
        yield from walk(trace.to_plotly_json(), f"data[{number}]")


def _faint(figure: go.Figure, layout: dict[str, Any]) -> Iterator[str]:
    paper = layout.get("plot_bgcolor", "#ffffff")
    for trace in figure.data:
        if (
            trace.type != "scatter"
            or trace.opacity not in (None, 1)
            or "lines" not in (trace.mode or "lines")
        ):
            continue
        colour, width = trace.line.color, trace.line.width
        if width != 0 and _hex(colour) and _hex(paper) and contrast(colour, paper) < FAINTEST:
            yield f"the line {trace.name!r} is too faint: {colour} on {paper}"


Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, from the top left corner


def _crowded(figure: go.Figure, layout: dict[str, Any], width: int) -> Iterator[str]:
    wide, high = layout.get("width", width), layout.get("height", 450)
    legend, plot = _legend(figure, layout, wide, high)
    boxes = dict(_boxes(layout, wide, high, plot)) | ({"legend": legend} if legend else {})
    for name, (left, top, right, bottom) in boxes.items():
        if left < -1 or top < -1 or right > wide + 1 or bottom > high + 1:
            yield f"the {name} is cut off at the edge"
    for (one, here), (other, there) in combinations(boxes.items(), 2):
        if _meet(here, there):
            yield f"the {one} and the {other} overlap"
    for name in {"title", "legend"} & set(boxes):
        if _meet(boxes[name], plot):
            yield f"the {name} lies on the data"
    for name, axis in _axes(figure, layout).items():
        if not name.startswith("scene"):
            first, last = axis.get("domain", (0, 1))
            room = (last - first) * (plot[2] - plot[0] if name[0] == "x" else plot[3] - plot[1])
            title = axis.get("title", {})
            if _size(title.get("text") or "", title.get("font", {}).get("size", 14))[0] > room:
                yield f"the title of {name} is longer than the axis"


def _legend(figure: go.Figure, layout: dict[str, Any], width: float, height: float) -> tuple[Box | None, Box]:
    """Where the legend is, if there is one, and the room that it leaves to the data: plotly widens margins for it."""
    margin = {"l": 80, "r": 80, "t": 100, "b": 80} | layout.get("margin", {})
    left, top, right, bottom = plot = margin["l"], margin["t"], width - margin["r"], height - margin["b"]
    named = [t for t in figure.data if t.name and t.visible is not False and _in_legend(t)]
    if not named or not layout.get("showlegend", len(named) > 1 or named[0].showlegend):
        return None, plot
    legend = layout.get("legend", {})
    letters = legend.get("font", {}).get("size", layout.get("font", {}).get("size", 12))
    rows: list[list[tuple[float, float]]] = [[]]
    for wide, high in (_size(trace.name, letters) for trace in named):
        taken = sum(w for w, _ in rows[-1])
        if rows[-1] and (legend.get("orientation") != "h" or taken + wide + 40 > right - left):
            rows.append([])
        rows[-1].append((wide + 40, high + 3))
    size = max(sum(w for w, _ in row) for row in rows), sum(max(h for _, h in row) for row in rows)
    x, y = legend.get("x", 1.02), legend.get("y", 1)
    ends = _anchor(legend.get("xanchor", "left"), x), 1 - _anchor(legend.get("yanchor", "auto"), y)
    if x >= 1 and ends[0] == 0:
        right = min(right, width - size[0] - (x - 1) * (right - left))
    if y >= 1 and ends[1] == 1:
        top = max(top, size[1] + (y - 1) * (bottom - top))
    if y <= 0 and ends[1] == 0:
        bottom = min(bottom, height - size[1] + y * (bottom - top))
    plot = (left, top, right, bottom)
    return _on_paper(x, y, plot, size, ends), plot


def _in_legend(trace: Any) -> bool:
    return "showlegend" in trace and trace.showlegend is not False


def _boxes(layout: dict[str, Any], width: float, height: float, plot: Box) -> Iterator[tuple[str, Box]]:
    """Where the title and the notes on the paper are, as far as the layout tells."""
    title = layout.get("title", {})
    if title.get("text"):
        size = _size(title["text"], title.get("font", {}).get("size", 17))
        pad, at, up = title.get("pad", {}), title.get("x", 0.05), title.get("y", "auto")
        x = plot[0] + at * (plot[2] - plot[0]) if title.get("xref") == "paper" else at * width
        if up == "auto":
            y = plot[1] / 2
        elif title.get("yref") == "paper":
            y = plot[3] - up * (plot[3] - plot[1])
        else:
            y = (1 - up) * height
        ends = _anchor(title.get("xanchor", "auto"), at), 1 - _anchor(title.get("yanchor", "middle"), 0.5)
        yield "title", _box(x + pad.get("l", 0), y + pad.get("t", 0), size, ends)
    letters = layout.get("font", {}).get("size", 12)
    for number, note in enumerate(layout.get("annotations", ())):
        if note.get("xref") == note.get("yref") == "paper" and not note.get("showarrow", True):
            size = _size(note.get("text", ""), note.get("font", {}).get("size", letters))
            x, y = note.get("x", 0), note.get("y", 0)
            ends = _anchor(note.get("xanchor", "auto"), x), 1 - _anchor(note.get("yanchor", "auto"), y)
            yield f"note {number + 1}", _on_paper(x, y, plot, size, ends)


def _anchor(name: str, at: float) -> float:
    """Which part of a text stands at its place: 0 its left or lower end, 1 its right or upper one."""
    if name == "auto":
        return 0 if at <= 1 / 3 else 1 if at >= 2 / 3 else 0.5
    return {"left": 0, "bottom": 0, "right": 1, "top": 1}.get(name, 0.5)


def _on_paper(x: float, y: float, plot: Box, size: tuple[float, float], ends: tuple[float, float]) -> Box:
    left, top, right, bottom = plot
    return _box(left + x * (right - left), bottom - y * (bottom - top), size, ends)


def _box(x: float, y: float, size: tuple[float, float], ends: tuple[float, float]) -> Box:
    """A box of `size` that holds (x, y) at the share `ends` of its width and height, from the left and the top."""
    left, top = x - ends[0] * size[0], y - ends[1] * size[1]
    return left, top, left + size[0], top + size[1]


def _meet(one: Box, other: Box) -> bool:
    """Whether two boxes share more than the pixel by which estimates are off."""
    return (
        min(one[2], other[2]) - max(one[0], other[0]) > 1
        and min(one[3], other[3]) - max(one[1], other[1]) > 1
    )


def _size(text: str, letters: float) -> tuple[float, float]:
    """Width and height of a text in pixels, about: letters by their kind, as in Helvetica, and lines of 1.3 em."""
    wide = high = 0.0
    for line in re.split(r"<br\s*/?>", text):
        own = re.search(r"font-size:\s*([\d.]+)px", line)
        em = float(own[1]) if own else letters
        plain = re.sub(r"<[^>]*>|&\w+;", "", line)
        wide = max(wide, em * sum(0.3 if c in " ijltfr.,;:|!'()[]" else 0.88 if c in "mwMW%@" else 0.68
                                  if c.isupper() else 0.56 for c in plain))  # fmt: skip
        high += 1.3 * em
    return wide, high


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _hex(colour: object) -> bool:
    return isinstance(colour, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", colour) is not None
