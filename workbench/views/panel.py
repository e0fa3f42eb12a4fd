"""What every panel does: form, buttons, status line, and a thread that brings it all up to what lies on the disk.

A thread looks five times a second, and draws. No callback does more than write a small file, start a thread or set a
flag, because in a notebook a callback waits for the running cell and the page waits for the callback. What the page
shows therefore follows from the disk, so a reloaded page, or the cell run again, shows the same. It knows no training
and no figure.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as w

from workbench.views.form import Form
from workbench.views.live import INTERVAL
from workbench.views.status import STYLE, fault_html
from workbench.views.theme import CSS, Theme


class Panel(ABC):
    """A panel over one folder: a form, buttons, a sentence on where things stand, and what is below it.

    A subclass makes `form` before it calls this constructor, gives what is abstract here, and calls `begin` last.

    Args:
        folder: where everything that the panel does is written, and what it shows.
    """

    form: Form[Any]
    # The newest panel of each kind and folder: a cell run again makes a new one, and the older must stop.
    _newest: ClassVar[dict[tuple[type, Path], Panel]] = {}

    def __init__(self, folder: str | Path, theme: Theme = "light") -> None:
        self.folder, self.theme = Path(folder).resolve(), theme
        self._saying, self._drawing = threading.RLock(), threading.Lock()  # the first is never held for long
        self._closed, self._news = threading.Event(), threading.Event()
        self._fault: Exception | None = None  # of a button
        self._undrawn: Exception | None = None
        self._build()

    def begin(self) -> None:
        """Takes the place of an older panel of this kind and folder, and starts to look at the disk."""
        if (older := self._newest.get((type(self), self.folder))) is not None:
            older.close()
        self._newest[type(self), self.folder] = self
        self.refresh()
        threading.Thread(target=self._watch, name=f"{type(self).__name__} panel", daemon=True).start()

    # What a subclass gives

    @abstractmethod
    def _make_buttons(self) -> list[w.Button]:
        """The buttons below the form, made once."""

    @abstractmethod
    def _body(self) -> list[w.Widget]:
        """What stands below the status line."""

    @abstractmethod
    def _stand(self) -> str:
        """Brings the buttons up to where things stand, and gives the sentence on that; a callback waits for it."""

    @abstractmethod
    def _look(self) -> bool:
        """Brings what is below up to what the disk says now; False where there is no news, which must be cheap.

        Called by one thread at a time. What it raises is said in the panel until a drawing goes well.
        """

    # What it shows

    def widget(self) -> w.VBox:
        """The panel itself."""
        return self._box

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self._box._repr_mimebundle_(**options)

    def close(self) -> None:
        """Stops reading and drawing; work that goes on, goes on."""
        self._closed.set()
        self._news.set()
        with self._saying:
            for button in self._buttons:
                button.disabled = True
            self._status.value = (
                "<div class='wb-status'><small>This panel has moved to a newer cell.</small></div>"
            )

    # How it is kept up to date

    def _watch(self) -> None:
        while not self._closed.is_set():
            self._news.wait(INTERVAL)
            self._news.clear()
            self.refresh()

    def refresh(self) -> None:
        """Brings every widget up to what the disk says now; cheap when nothing changed."""
        self._say()
        with self._drawing:
            if self._closed.is_set():
                return
            try:
                if self._look():
                    self._undrawn = None
            except Exception as error:
                self._undrawn = error
        if self._undrawn:
            self._say()

    def _say(self) -> None:
        """Where things stand, in the sentence and on the buttons: what a callback has time for."""
        with self._saying:
            if self._closed.is_set():
                return
            try:
                html = self._stand()
            except Exception as error:  # a damaged file; said until it can be read
                html = fault_html(str(error), "")
            html += "".join(fault_html(str(fault), "") for fault in (self._fault, self._undrawn) if fault)
            if self._status.value != html:
                self._status.value = html

    # How it is put together

    def _build(self) -> None:
        self._buttons = self._make_buttons()
        self._status = w.HTML(layout={"width": "100%"})
        style = w.HTML(f"<style>{CSS}{STYLE}</style>", layout={"display": "none"})
        buttons = w.HBox(self._buttons).add_class("wb-buttons")
        parts = [style, self.form.box, buttons, self._status, *self._body()]
        self._box = w.VBox(parts).add_class("wb-panel").add_class(f"wb-{self.theme}")

    def button(self, text: str, icon: str, call: Callable[[], None], **style: str) -> w.Button:
        """A button that does `call`, and says in the panel what went wrong there."""

        def pressed(_: w.Button) -> None:
            try:
                call()
            except Exception as error:
                self._fault = error
                self._say()

        button = w.Button(description=text, icon=icon, style=style)
        button.on_click(pressed)
        return button


def bundled() -> list[str]:
    """The names of the bundled backbones; reads no library."""
    from workbench.data import BACKBONES

    return sorted(path.parent.name for path in BACKBONES.glob("*/config.json"))
