"""The controls of a panel: rows of them, menus, titles of parts; and what is done beside the page. Knows no panel.

No control does more than call what it was given, which sets a flag.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w

STYLE = """
.wb-panel .wb-controls { flex-flow: row wrap; gap: 4px 16px; align-items: center; margin: 6px 0; }
.wb-panel .wb-controls > * { margin: 0; } .wb-panel .wb-controls .widget-label { color: var(--wb-quiet); font-size: 12px; }
.wb-panel .wb-controls button { height: 28px; line-height: 28px; width: auto; border-radius: 4px; }
.wb-panel h4.wb-part { font-size: 14px; font-weight: 600; margin: 14px 0 0; color: var(--wb-text); }
"""


def style(css: str = "") -> w.HTML:
    """The looks of controls, once in a panel; `css` is added."""
    return w.HTML(f"<style>{STYLE}{css}</style>", layout={"display": "none"})


def row(*parts: w.Widget) -> w.HBox:
    """Controls side by side, as far as there is room."""
    return w.HBox(list(parts)).add_class("wb-controls")


def part(text: str) -> w.HTML:
    """The title of a part of the panel."""
    return w.HTML(f"<h4 class='wb-part'>{text}</h4>")


def menu(text: str, options: Any, width: str, changed: Callable[[Any], None]) -> w.Dropdown:
    """A menu that calls `changed` when something else is chosen."""
    made = w.Dropdown(options=options, description=text, style={"description_width": "auto"})
    made.layout.width = width
    made.observe(changed, "value")
    return made


def offer(menu: w.Dropdown, options: Sequence[tuple[str, Any]]) -> None:
    """Other options, and the same choice where it is still there."""
    if tuple(menu.options) != tuple(options):
        values, before = [value for _, value in options], menu.value
        menu.options = options
        menu.value = before if before in values else values[0]


class Chores:
    """What is done in threads beside a page, one of a name at a time.

    Args:
        of: whose chores they are, for the threads' names.
        failed: called with what went wrong in one.
        news: set when one begins and when it ends.
    """

    def __init__(self, of: str, failed: Callable[[Exception], None], news: threading.Event) -> None:
        self.of, self.failed, self.news = of, failed, news
        self._threads: dict[str, threading.Thread] = {}

    def busy(self, name: str) -> bool:
        """Whether one of this name is being done."""
        thread = self._threads.get(name)
        return thread is not None and thread.is_alive()

    def do(self, name: str, call: Callable[[], None]) -> bool:
        """Begins one and returns at once; False, and nothing, where one of this name is not done yet."""
        if self.busy(name):
            return False

        def run() -> None:
            try:
                call()
            except Exception as error:
                self.failed(error)
            self.news.set()

        self._threads[name] = threading.Thread(target=run, name=f"{self.of}: {name}", daemon=True)
        self._threads[name].start()
        self.news.set()
        return True

    def wait(self, seconds: float = threading.TIMEOUT_MAX) -> bool:
        """For scripts: waits for all that were begun; False where time ran out."""
        threads = list(self._threads.values())
        for thread in threads:
            thread.join(seconds)
        return not any(thread.is_alive() for thread in threads)
