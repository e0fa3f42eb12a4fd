"""A plotly figure that threads may draw on while a notebook shows it. Knows nothing of runs or training.

Three things go wrong with a bare `FigureWidget` that a thread updates, and this wrapper is where they are put right:

- It is not thread-safe. Two threads that draw, or one that draws while the browser's answer to an earlier
  drawing comes in, lose updates. Here one lock is held by both directions.
- After the page is reloaded it shows what it showed first. Its synced traits (`_widget_data`, `_widget_layout`)
  are filled on construction only; later changes travel as one-off messages, and the browser's own copy of the
  traits does not keep them either (each read of it is a fresh clone). Here the traits follow every drawing.
- It will happily send hundreds of drawings a second, and the browser falls behind. Here at most five are sent,
  and the newest one always is.
"""

from __future__ import annotations

import threading
import time
from copy import deepcopy
from typing import Any

import plotly.graph_objects as go

#: Seconds between two drawings: five a second.
INTERVAL = 0.2


class LiveFigure(go.FigureWidget):
    """A figure on a page that can be drawn on from any thread.

    The traces are those of the first figure; a drawing changes their data and style, never their number.
    """

    def __init__(self, figure: go.Figure) -> None:
        # Set before the widget opens its comm: from then on messages may come in.
        self.__dict__["_lock"] = threading.RLock()
        self.__dict__["_pending"] = None
        self.__dict__["_timer"] = None
        self.__dict__["_last_drawn"] = 0.0
        super().__init__(figure)
        self._config = {"displaylogo": False}

    def draw(self, figure: go.Figure) -> None:
        """Shows `figure` now, or as soon as the last drawing is 0.2 s old; a newer figure replaces a waiting one.

        Raises ValueError when the traces of `figure` are not of the number and types first shown.
        """
        if [trace.type for trace in figure.data] != [trace.type for trace in self.data]:
            raise ValueError("a live figure keeps its traces; make a new one for other traces")
        with self._lock:
            self.__dict__["_pending"] = figure
            wait = self._last_drawn + INTERVAL - time.monotonic()
            if wait <= 0:
                self.flush()
            elif self._timer is None:
                timer = threading.Timer(wait, self.flush)
                timer.daemon = True
                self.__dict__["_timer"] = timer
                timer.start()

    def flush(self) -> None:
        """Draws the waiting figure, if there is one, without waiting for its turn."""
        with self._lock:
            figure, self.__dict__["_pending"] = self._pending, None
            timer, self.__dict__["_timer"] = self._timer, None
            if timer is not None:
                timer.cancel()
            if figure is None:
                return
            with self.batch_update():
                for shown, wanted in zip(self.data, figure.data, strict=True):
                    _assign(shown, wanted.to_plotly_json(), skip=("type", "uid"))
                _assign(self.layout, figure.layout.to_plotly_json(), skip=("template",))
            self.refresh()
            self.__dict__["_last_drawn"] = time.monotonic()

    def refresh(self) -> None:
        """Brings the synced traits up to what is shown, so that a reloaded page starts from there."""
        with self._lock:
            self._widget_layout = deepcopy(self._layout_obj._props)
            self._widget_data = deepcopy(self._data)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """The widget's synced state, read under the lock: never half of a drawing."""
        with self._lock:
            return super().get_state(key=key, drop_defaults=drop_defaults)

    def set_state(self, sync_data: Any) -> None:
        """What the browser sends back, applied under the lock: never in the middle of a drawing."""
        with self._lock:
            super().set_state(sync_data)


def _assign(shown: Any, wanted: dict[str, Any], skip: tuple[str, ...]) -> None:
    # plotly itself sends only the properties that differ, so an unchanged background costs no traffic here.
    for name, value in wanted.items():
        if name not in skip:
            shown[name] = value
    # What is no longer wanted goes: the note of an empty state, most of all.
    for name in set(shown.to_plotly_json()) - set(wanted) - set(skip):
        shown[name] = None
