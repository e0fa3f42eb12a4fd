"""plotly's JavaScript, once a page: what every live figure would bring along, five megabytes each. Draws nothing.

anywidget gives a widget two seconds to be ready, of which the reading of that much JavaScript takes a good part; a page
of some figures that is reloaded reads it for each of them before any is ready, and shows "model not found" instead. So
one hidden widget brings the code, and a figure brings a few lines that are ready at once and wait for it.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import plotly
import traitlets
from anywidget import AnyWidget
from plotly.basewidget import BaseFigureWidget

#: The one place of the page that both sides know, of this plotly; a promise, with the function that keeps it.
_SHARED = """
const name = "workbench: plotly VERSION";
const shared = globalThis[name] ??= (() => { let give; return {code: new Promise(done => { give = done; }), give}; })();
""".replace("VERSION", plotly.__version__)

_BRINGS = (
    _SHARED
    + """
export default () => ({
  initialize({model}) {
    if (shared.begun) return;
    shared.begun = true;
    const place = URL.createObjectURL(new Blob([model.get("code")], {type: "text/javascript"}));
    shared.give(import(place).then(module => { shared.there = true; return module.default; }));
  },
  render() {},
});
"""
)

#: What a figure is made of in the page: plotly's own widget, begun as soon as the code is there. It is shown with the
#: traits that the kernel sends when it is asked for them: drawings that were sent before are in them, and those that are
#: sent later find it there. A kernel that is busy does not answer; then half a second is waited, and longer only while the
#: traits are behind a drawing (an odd edition, see live.py).
WAITS = (
    _SHARED
    + """
export default () => {
  const there = shared.there;
  let begun;
  const begin = context => begun ??= shared.code.then(async make => {
    const widget = make();
    await widget.initialize(context);
    return widget;
  });
  const newest = (model, show) => new Promise((done, failed) => {
    let patience = 20, timer;
    const end = () => {
      model.off("change:_edition", answered);
      clearInterval(timer);
      Promise.resolve(show()).then(done, failed);  // at once, before the next message comes in
    };
    const answered = () => { if (model.get("_edition") % 2 === 0) end(); };
    model.on("change:_edition", answered);
    timer = setInterval(() => { if (model.get("_edition") % 2 === 0 || --patience === 0) end(); }, 500);
    model.set("_asked", model.get("_asked") + 1);
    model.save_changes();
  });
  return {
    async initialize(context) { const done = begin(context); if (there) await done; },
    async render(context) {
      const widget = await begin(context);
      return newest(context.model, () => widget.render(context));
    },
  };
};
"""
)

_making = threading.Lock()


class Bundle(AnyWidget):
    """The hidden widget; `bundle()` makes the one that a kernel needs."""

    _esm = _BRINGS
    code = traitlets.Unicode().tag(sync=True)


def bundle() -> Bundle:
    """The code as a widget that every page of this kernel has, made when it is first asked for."""
    with _making:
        return _made()


@cache
def _made() -> Bundle:
    code: str | Path = BaseFigureWidget._esm
    return Bundle(code=code.read_text(encoding="utf-8") if isinstance(code, Path) else str(code))
