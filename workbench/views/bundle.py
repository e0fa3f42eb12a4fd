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

#: What a figure is made of in the page: plotly's own widget, begun as soon as the code is there.
WAITS = (
    _SHARED
    + """
export default () => {
  const there = shared.there;
  let begun;
  const begin = context => begun ??= shared.code.then(async make => {
    // what was sent while the code was read is applied first: a widget begins with the state that there is then
    if (!there) await new Promise(done => setTimeout(done, 250));
    const widget = make();
    await widget.initialize(context);
    return widget;
  });
  return {
    async initialize(context) { const done = begin(context); if (there) await done; },
    async render(context) { return (await begin(context)).render(context); },
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
