"""The traps of live figures, each from its own reproduction: threads, a page that comes or comes again, a cell that runs.

The unit tests of `LiveFigure` are in test_views.py. Here stand the faults themselves: the same check is made of a
bare or broken variant, which must fail it.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from workbench.views import LiveFigure
from workbench.views.bundle import bundle
from workbench.views.live import INTERVAL

UPDATES = 1500
FIGURES = [
    go.Figure(go.Scatter(x=np.arange(n), y=np.arange(n) * 2.0), layout={"title": {"text": f"{n}"}})
    for n in range(2, 34)
]


# Trap 1: FigureWidget is not safe between threads


class NoLock:
    """What LiveFigure would be without its lock."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass

    def notify_all(self) -> None:
        pass


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads change places at every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hammer(live: LiveFigure, updates: int) -> int:
    """Two threads draw, a third answers as a page does; how many drawings failed or left the page in halves."""
    live._drawer = threading.current_thread()  # every drawing is done by the thread that asks for it
    faults: list[str] = []

    def sent(change: Any) -> None:
        """One drawing as one message: its points, its other points and its title belong together."""
        if change["new"] is None:
            return
        told = str(change["new"])
        if "style_data" in change["new"] and ("'x'" in told) != ("'y'" in told):
            faults.append("half a drawing")

    live.observe(sent, names="_py2js_update")

    def draw(first: int) -> None:
        for i in range(updates // 2):
            try:
                live.draw(FIGURES[(first + i) % len(FIGURES)])
                live.flush()
            except Exception as error:
                faults.append(repr(error))

    done = threading.Event()

    def page() -> None:
        while not done.is_set():
            try:
                live.set_state(
                    {"_js2py_traceDeltas": {"trace_deltas": [], "trace_edit_id": live._last_trace_edit_id}}
                )
                state = live.get_state()
                points = len(state["_widget_data"][0]["x"])
                if str(points) != state["_widget_layout"]["title"]["text"]:
                    faults.append(
                        f"{points} points below the title {state['_widget_layout']['title']['text']}"
                    )
            except Exception as error:
                faults.append(repr(error))

    threads = [threading.Thread(target=draw, args=(first,)) for first in (0, len(FIGURES) // 2)]
    reader = threading.Thread(target=page)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    return len(faults)


def test_two_threads_and_a_page_lose_nothing(impatient: None) -> None:
    """Protects the lock, in both directions."""
    live = LiveFigure(FIGURES[0])
    assert hammer(live, UPDATES) == 0
    live.draw(FIGURES[5])
    live.flush()
    assert len(live.data[0].x) == 7 and live.layout.title.text == "7"


def test_without_the_lock_the_same_two_threads_do(impatient: None) -> None:
    """The trap is still there, so the test above can fail."""
    live = LiveFigure(FIGURES[0])
    live._turn = NoLock()  # type: ignore[assignment]
    assert hammer(live, UPDATES) > 0


# Trap 2: a reloaded page shows what was shown first


def test_a_page_that_asks_again_while_drawings_come_gets_a_whole_and_new_one() -> None:
    """Protects a reload in the middle of training: what the page is given is the newest drawing, and never half of it."""
    live = LiveFigure(FIGURES[0])
    bare = go.FigureWidget(FIGURES[0])
    for figure in FIGURES[1:]:
        live.draw(figure)
        live.flush()
        with bare.batch_update():
            bare.data[0].update(x=figure.data[0].x, y=figure.data[0].y)
        state = live.get_state()
        assert len(state["_widget_data"][0]["x"]) == len(figure.data[0].x)
        assert state["_widget_layout"]["title"]["text"] == figure.layout.title.text
    assert len(bare.get_state()["_widget_data"][0]["x"]) == 2, (
        "plotly has mended it, and LiveFigure may shrink"
    )


def test_a_page_that_is_about_to_show_a_figure_asks_and_is_told_all_of_it() -> None:
    """Protects a drawing that comes while the page makes the figure: the browser's side of it is in tests/."""
    live = LiveFigure(FIGURES[0])
    sent: list[tuple[str, Any]] = []
    live.observe(lambda change: sent.append((change["name"], change["new"])), ["_edition", "_widget_data"])
    live.draw(FIGURES[5])
    live.flush()
    assert live._edition % 2 == 1, "the traits are behind, and a page must not begin with them"
    live.set_state({"_asked": 1})
    assert live._edition % 2 == 0 and len(live._widget_data[0]["x"]) == 7
    assert [name for name, _ in sent] == ["_edition", "_widget_data", "_edition"], "the word comes last"
    live.set_state({"_asked": 2})
    assert sent[-1] == ("_edition", 4), "who asks is answered, whether anything was drawn or not"


# Trap 3: while a cell runs, no callback does, whatever ipykernel promises of subshells

SETUP = """
import threading, time
import plotly.graph_objects as go
from workbench.views.bundle import bundle
from workbench.views.live import LiveFigure

def drawing(n):
    return go.Figure(go.Scatter(x=list(range(n)), y=list(range(n))))

live = LiveFigure(drawing(1))

def work():
    for n in range(2, 40):
        live.draw(drawing(n))
        time.sleep(0.1)
"""
CELL = "threading.Thread(target=work, daemon=True).start(); time.sleep(3)"


def test_a_figure_is_drawn_while_a_cell_runs() -> None:
    """Protects `for step in wb.fit(…)` beside a panel: in a real kernel, whose cell answers nothing, drawings go out.

    No page answers here, as none is heard while a cell runs, so there is one at once and then one every two seconds.
    """
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(SETUP, timeout=60, silent=True)
        asked = client.execute(CELL)
        drawings, ended = 0, False
        end = time.monotonic() + 60
        while not ended and time.monotonic() < end:
            try:
                message = client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            state = (
                message["content"].get("data", {}).get("state", {})
                if message["msg_type"] == "comm_msg"
                else {}
            )
            drawings += bool(state.get("_py2js_update"))
            same = message["parent_header"].get("msg_id") == asked
            ended = same and message["content"].get("execution_state") == "idle"
        assert ended
        assert drawings >= 2, f"{drawings} drawings while the cell ran"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def test_a_marker_may_hold_an_array() -> None:
    """Protects figures with a colour a point: arrays inside a style are compared as arrays, and a change is drawn."""
    colours = np.arange(5.0)
    one, other = (
        go.Figure(go.Scatter(x=colours, y=colours, marker={"color": now, "size": 3}))
        for now in (colours, colours[::-1].copy())
    )
    live = LiveFigure(one)
    for figure in (other, other, one):
        live.draw(figure)
        live.flush()
        assert list(live.data[0].marker.color) == list(figure.data[0].marker.color)


def test_a_drawing_does_not_wait_for_the_refresh_of_the_one_before() -> None:
    """Protects a slider: its next move comes within the second after which the page's copy is brought up to date."""
    first, second = (go.Figure(go.Scatter(x=[1.0], y=[height])) for height in (1.0, 2.0))
    live = LiveFigure(first)
    live.draw(second)
    live.flush()
    live._trace_edit_in_process = False  # and has drawn
    time.sleep(INTERVAL + 0.05)
    live.draw(first)
    time.sleep(0.15)
    assert live.data[0].y[0] == 1.0


def test_plotly_s_code_comes_once_however_many_figures_there_are() -> None:
    """Protects a page of many figures: anywidget gives each two seconds, and reading 5 MB for each takes longer."""
    one, other = LiveFigure(go.Figure()), LiveFigure(go.Figure())
    states = [figure.get_state() for figure in (one, other)]
    assert all(len(state["_esm"]) < 2_000 for state in states)
    assert bundle() is bundle() and len(bundle().get_state()["code"]) > 1_000_000
    assert all("globalThis" in text for text in (states[0]["_esm"], bundle().get_state()["_esm"]))
    bare = go.FigureWidget(go.Figure()).get_state()
    assert len(bare["_esm"]) > 1_000_000, "plotly has a cure of its own; drop ours"


# Trap 4: what the page fills in by itself


@pytest.mark.parametrize("kind", [LiveFigure, go.FigureWidget])
def test_a_page_s_answer_takes_nothing_out_of_a_drawing(kind: type[go.FigureWidget]) -> None:
    """A bare figure forgets the marker, and draws another after a reload; the answer is an answer all the same."""
    live = kind(go.Figure(go.Scatter(x=[1], y=[1], mode="markers", marker={"size": 12, "color": "#02459e"})))
    live.data[0].x = [2]
    live._trace_edit_in_process = True
    delta = {"uid": live.data[0].uid, "marker": {"size": 12, "color": "#02459e"}}
    live.set_state(
        {"_js2py_traceDeltas": {"trace_deltas": [delta], "trace_edit_id": live._last_trace_edit_id}}
    )
    assert not live._trace_edit_in_process
    assert ("marker" in live._data[0]) is (kind is LiveFigure)


# Trap 5: what was drawn round


@pytest.mark.parametrize("kind", [LiveFigure, go.FigureWidget])
def test_an_outline_leaves_the_page_and_points_are_as_they_are_drawn(kind: type[go.FigureWidget]) -> None:
    """A bare figure keeps the outline, and has every point pale once the page says that nothing is selected."""
    live = kind(go.Figure(go.Scatter(x=[0, 1], y=[0, 1], mode="markers", selectedpoints=[1])))
    heard, sent = list[Any](), list[Any]()
    if isinstance(live, LiveFigure):
        live.on_brush = heard.append
    live.observe(lambda change: sent.append(change["new"]), names="_py2js_relayout")
    drawn = [{"type": "path", "path": "M0,0L3,0L3,3Z", "xref": "x", "yref": "y"}]
    live.set_state({"_js2py_relayout": {"relayout_data": {"selections": drawn}, "source_view_id": "1"}})
    points = {"trace_indexes": [], "point_indexes": [], "xs": [], "ys": []}
    live.set_state({"_js2py_pointsCallback": {"event_type": "plotly_selected", "points": points}})
    ours = kind is LiveFigure
    assert bool(heard) is ours and (not live._layout_obj._props.get("selections")) is ours
    assert ({"selections": []} in [message["relayout_data"] for message in sent if message]) is ours
    assert (live.data[0].selectedpoints == (1,)) is ours
