"""A figure as a still picture, drawn by a Chromium or Chrome of this machine. Needs no other package and no network.

The browser opens a page with the figure and plotly's library, has plotly make the picture, and prints it.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import unquote

import plotly.graph_objects as go

from workbench.errors import WorkbenchError
from workbench.views.page import figure_part, page

#: The names that a Chromium goes by.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")

#: Where it lies when it is on no path: on a Mac, and where Playwright puts its own.
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PLAYWRIGHT = (".cache/ms-playwright", "Library/Caches/ms-playwright")

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # the page is our own, and a sandbox cannot be had as root or in most containers
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=60000",
    "--dump-dom",
)

#: Seconds that the browser is given for one picture.
PATIENCE = 120

SCRIPT = """<pre id="picture"></pre><script>
Plotly.toImage(document.querySelector('.plotly-graph-div'), {format: 'KIND', width: WIDTH, height: HEIGHT, scale: SCALE})
  .then(url => { document.getElementById('picture').textContent = 'picture ' + url; },
        error => { document.getElementById('picture').textContent = 'fault ' + error; });
</script>"""


def picture(figure: go.Figure, kind: Literal["png", "svg"], scale: float = 2) -> bytes:
    """The figure at the size that it asks for; a PNG has `scale` pixels to each of its own.

    Raises:
        WorkbenchError: there is no browser, or it drew nothing.
    """
    browser = find_browser()
    if browser is None:
        raise WorkbenchError(
            f"a .{kind} is drawn by Chromium or Chrome, and none was found; install one (Debian: `apt install "
            "chromium`) or name it in BROWSER_PATH; .html and .csv need neither"
        )
    figure = go.Figure(figure).for_each_trace(  # in a picture nobody can press a legend's entry
        lambda trace: trace.update(showlegend=False), {"visible": "legendonly"}
    )
    script = SCRIPT.replace("KIND", kind).replace("SCALE", f"{scale:g}")
    script = script.replace("WIDTH", f"{figure.layout.width or 900}").replace(
        "HEIGHT", f"{figure.layout.height or 450}"
    )
    with TemporaryDirectory(prefix="workbench-picture-", ignore_cleanup_errors=True) as folder:
        source = Path(folder) / "figure.html"
        source.write_text(page("figure", [figure_part(figure) + script]), encoding="utf-8")
        command = [str(browser), *ARGUMENTS, f"--user-data-dir={folder}/browser", source.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _fault(browser, kind, str(error)) from error
    found = re.search(
        r'<pre id="picture">(picture|fault) ([^<]*)</pre>', done.stdout.decode(errors="replace")
    )
    if found is None or found[1] == "fault":
        said = found[2] if found else done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise _fault(browser, kind, said or f"it ended with {done.returncode}")
    head, _, content = found[2].partition(",")
    return base64.b64decode(content) if head.endswith("base64") else unquote(content).encode()


def find_browser() -> Path | None:
    """The browser that BROWSER_PATH names, or one that this machine has."""
    return next(filter(Path.is_file, _candidates()), None)


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("BROWSER_PATH"):
        yield Path(named)
    yield from (Path(found) for name in NAMES if (found := shutil.which(name)))
    yield from map(Path, PLACES)
    for folder in PLAYWRIGHT:
        yield from sorted((Path.home() / folder).glob("chromium-*/chrome-*/chrome"), reverse=True)


def _fault(browser: Path, kind: str, said: str) -> WorkbenchError:
    return WorkbenchError(
        f"{browser} did not draw the .{kind} ({said[:200]}); name another browser in BROWSER_PATH, or save as .html"
    )
