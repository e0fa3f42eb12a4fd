"""A plotly figure that threads may draw on while a notebook shows it. Knows nothing of runs or training.

Seven things go wrong with a bare `FigureWidget` that a thread updates, and this wrapper is where they are put right:

- It is not thread-safe. Two threads that draw, or one that draws while the browser's answer to an earlier
  drawing comes in, lose updates. Here one lock is held by both directions.
- After the page is reloaded it shows what it showed first. Its synced traits (`_widget_data`, `_widget_layout`)
  are filled on construction only; later changes travel as one-off messages, and the browser's own copy of the
  traits does not keep them either (each read of it is a fresh clone). Here the traits are brought up
  to date when a page asks for them, and soon after every drawing.
- A drawing that is sent while a page makes the figure is lost on it, or half of it is, and the next one changes traces
  that are not there. Here a page asks when it is about to show the figure, and begins with the answer (`bundle.py`).
- It tells the browser of itself while it is still empty, and sends its traces in a second message; where the browser
  is slow (5 MB of JavaScript are read first) the figure is drawn before that message, and stays empty for good,
  since the browser's side draws the traits once. Here it is made known when it is complete.
- It will happily send hundreds of drawings a second, and the browser falls behind until its buttons answer no more.
  Here at most five are sent, the next only when the browser has drawn the last, and the newest always is.
- What a page says that it filled in by itself is taken out of the traces where they say it too, so that after a reload
  a marker has another colour. Here a drawing is what it was drawn as.
- Each brings plotly's JavaScript with it, so that a page of several is not restored in time (`bundle.py`). Here it
  comes once a page.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from traitlets import Int, observe

from workbench.views.bundle import WAITS, bundle
from workbench.views.theme import CSS

#: Seconds between two drawings: five a second.
INTERVAL = 0.2
#: Seconds that a browser is given to answer a drawing before the next one is sent all the same.
PATIENCE = 2.0
#: Seconds from a drawing until the browser's copy of the traits has it, for a second view of the figure on one page.
REFRESH = 1.0


class LiveFigure(go.FigureWidget):
    """A figure on a page that can be drawn on from any thread.

    Where a drawing has as many traces as the one before, and of the same types, it changes their data and style; any
    other drawing takes their place. The widget stays the same one, with its zoom and its place on the page.

    Attributes:
        on_brush: called, in any thread, when something was drawn round with box or lasso: the corners (k, 2)
            of each outline, in the axes' units. The outline itself is taken off the page.
    """

    _esm = WAITS  # plotly's own code comes once a page, see bundle.py
    _css = CSS  # by which a figure of class `wb-light` follows JupyterLab's theme
    #: How often the traits were brought up to date, twice; and one more while they are behind what is shown.
    _edition = Int().tag(sync=True)
    #: A page sets it when it is about to show the figure.
    _asked = Int().tag(sync=True)
    on_brush: Callable[[list[NDArray[np.float64]]], None] | None = None

    def __init__(self, figure: go.Figure) -> None:
        self._turn = threading.Condition(threading.RLock())  # the one lock
        self._said: deque[Any] = deque()
        self._pending: go.Figure | None = None
        self._before = _props(figure)
        self._drawn_at = -PATIENCE
        self._stale = False
        self._drawer: threading.Thread | None = None
        self._complete = False
        super().__init__(figure)
        self._config = {"displaylogo": False}
        self._complete = True
        self.observe(self._brushed, "_js2py_relayout")
        self.open()

    def open(self) -> None:
        """Makes the widget known to the browser; ipywidgets calls this too early, when it does nothing."""
        if self._complete:
            bundle()
            super().open()

    def draw(self, figure: go.Figure) -> None:
        """Has `figure` drawn at its turn: 0.2 s after the last one, and once the browser has answered that one.

        Returns at once; a newer figure replaces a waiting one. Where no answer comes (no page is open, or a cell
        keeps the kernel from hearing it), the turn comes after two seconds.
        """
        with self._turn:
            self._pending = figure
            if self._drawer is None:
                self._drawer = threading.Thread(target=self._draw_in_turn, name="live figure", daemon=True)
                self._drawer.start()
            else:
                self._turn.notify_all()  # it may be waiting for the refresh, which is later than this one's turn

    def _draw_in_turn(self) -> None:
        """The thread that draws; it ends when nothing waits and the browser's copy is up to date."""
        with self._turn:
            try:
                while (wait := self._wait()) is not None:
                    if wait > 0:
                        self._turn.wait(wait)  # lets go of the lock meanwhile
                    elif self._pending is not None:
                        self.flush()
                    else:
                        self.refresh()
            finally:
                self._drawer = None

    def _wait(self) -> float | None:
        """Seconds until something is to be done; None when nothing is."""
        age = time.monotonic() - self._drawn_at
        if self._pending is not None:
            # plotly marks a drawing as in process until the browser answers it.
            return max(0.0, (PATIENCE if self._trace_edit_in_process else INTERVAL) - age)
        return max(0.0, REFRESH - age) if self._stale else None

    def flush(self) -> None:
        """Draws the waiting figure, if there is one, without waiting for its turn."""
        with self._turn:
            figure, self._pending = self._pending, None
            if figure is None:
                return
            unanswered = self._trace_edit_in_process
            self._edition |= 1
            shown_now: tuple[Any, ...] = self.data  # type: ignore[has-type]
            same = [trace.type for trace in figure.data] == [trace.type for trace in shown_now]
            with self.batch_update():
                if same:
                    for shown, wanted, before in zip(shown_now, figure.data, self._before[1:], strict=True):
                        _assign(shown, wanted._props, before, skip=("type", "uid"))
                _assign(self.layout, figure.layout._props, self._before[0], skip=("template",))
            if not same:
                # After the layout, which brings the axes that they are drawn on; and before the old ones go, since of a figure
                # without traces plotly lays out no second panel, on which a line may stand.
                self.add_traces(list(figure.data))
                self.data = self.data[len(shown_now) :]  # type: ignore[has-type]
            self._before, self._drawn_at, self._stale = _props(figure), time.monotonic(), True
            if unanswered:  # perhaps there is no page yet, and one that comes cannot ask, as a cell runs
                self.refresh()

    def refresh(self) -> None:
        """Brings the synced traits up to what is shown, here and in the browser."""
        with self._turn:
            self._stale = False
            self._widget_layout = deepcopy(self._layout_obj._props)
            self._widget_data = deepcopy(self._data)
            self._edition = (self._edition | 1) + 1  # last, since it says that the others have come

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """The widget's synced state: never half of a drawing, and never an old one when a page asks for all of it."""
        with self._turn:
            if (
                key is None and self._complete
            ):  # a page has asked; its answer is sent, so nothing else need be
                values = {
                    "_widget_layout": deepcopy(self._layout_obj._props),
                    "_widget_data": deepcopy(self._data),
                    "_edition": self._edition + (self._edition & 1),
                }
                self._trait_values.update(values)
            return super().get_state(key=key, drop_defaults=drop_defaults)

    def _brushed(self, change: Any) -> None:
        """The page's message on what was drawn round.

        It also sends the points that were selected, but in the trait that says what is hovered over: of two messages that
        wait to be sent the later one replaces the former, and after a selection the pointer hovers over something.
        """
        drawn = ((change["new"] or {}).get("relayout_data") or {}).get("selections")
        if drawn and self.on_brush is not None:
            # else it selects anew whatever a later drawing moves into it; plotly does not tell the page of this by itself
            self.layout.selections = ()
            self._send_relayout_msg({"selections": []})
            self.on_brush([outline(selection) for selection in drawn])

    @observe("_js2py_pointsCallback")
    def _handler_js2py_pointsCallback(self, change: Any) -> None:
        """The page's message on points. Of a figure that is drawn round, which points stand out is said by its drawing:
        plotly would have all of them pale once the outline is gone, as if nothing had been drawn round."""
        event = (change["new"] or {}).get("event_type")
        if self.on_brush is not None and event in ("plotly_selected", "plotly_deselect"):
            self._js2py_pointsCallback = None
        else:
            super()._handler_js2py_pointsCallback(change)

    @observe("_js2py_traceDeltas")
    def _handler_js2py_traceDeltas(self, change: Any) -> None:
        """The page's answer to a drawing, which says what it filled in by itself. plotly would take that out of the traces
        where they say it too, and a page that is reloaded would then fill in something else: another colour."""
        if change["new"]:
            change["new"]["trace_deltas"] = []
        super()._handler_js2py_traceDeltas(change)

    def set_state(self, sync_data: Any) -> None:
        """What the browser sends back, applied under the lock: never in the middle of a drawing.

        The kernel's own thread does not wait for a drawing to end, as everybody who presses a button would; what comes
        meanwhile is applied after it, in the order in which it came.
        """
        self._said.append(sync_data)
        if self._turn.acquire(blocking=False):
            try:
                self._hear()
            finally:
                self._turn.release()
        else:
            threading.Thread(target=self._hear_in_turn, name="live figure hears", daemon=True).start()

    def _hear_in_turn(self) -> None:
        with self._turn:
            self._hear()

    def _hear(self) -> None:
        """Applies what the browser has said, under the lock."""
        while self._said:
            said = self._said.popleft()
            super().set_state(said)
            if "_asked" in said:
                self.refresh()
            self._turn.notify_all()  # it may be the answer that the next drawing waits for


def outline(selection: Mapping[str, Any]) -> NDArray[np.float64]:
    """The corners (k, 2) of a plotly selection, a box or a lasso.

    >>> outline({"type": "path", "path": "M0,0L2,0L1,1.5Z"}).tolist()
    [[0.0, 0.0], [2.0, 0.0], [1.0, 1.5]]
    """
    if selection["type"] == "path":
        return np.array([pair.split(",") for pair in re.findall(r"[^MLZ]+", selection["path"])], float)
    x0, x1, y0, y1 = (float(selection[name]) for name in ("x0", "x1", "y0", "y1"))
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _assign(shown: Any, wanted: dict[str, Any], before: dict[str, Any], skip: tuple[str, ...]) -> None:
    """Sets what differs from the drawing before, and takes away what is no longer wanted (an empty state's note)."""
    for name, value in wanted.items():
        if name not in skip and not (name in before and _same(before[name], value)):
            shown[name] = value
    for name in set(before) - set(wanted) - set(skip):
        shown[name] = None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        gaps = (
            one.dtype.kind == other.dtype.kind == "f"
        )  # a path has gaps, and a gap (nan) is not equal to itself
        return bool(np.array_equal(one, other, equal_nan=gaps))
    if isinstance(one, dict) and isinstance(other, dict):  # a marker, whose colours may be an array
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    return type(one) is type(other) and bool(one == other)


def _props(figure: go.Figure) -> list[dict[str, Any]]:
    """What a figure sets: its layout's properties, then each trace's."""
    return [figure.layout._props, *(trace._props for trace in figure.data)]
