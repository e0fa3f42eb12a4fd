"""Notebooks carried out without a page, and the site that `make report` makes of them. Holds no figure of its own.

A notebook is run from top to bottom. Where a person would press or choose something, the cell before it says so in
its metadata, in code: `{"workbench": {"small": "…", "full": "…"}}`; "small" is for tests, "full" for the report.

    python -m workbench.views.report            # reports/index.html, and a page for each notebook
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Literal

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from plotly.offline import get_plotlyjs

from workbench.data import DATA
from workbench.views.overview import Installed, Notebooks
from workbench.views.still import STILLS, figure_html

Size = Literal["small", "full"]

NOTEBOOKS = DATA.parent / "notebooks"
REPORTS = DATA.parent / "reports"
WIDGET, FIGURE = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"

#: JupyterLab's looks, plotly.js from the folder itself, and nothing from a network.
TEMPLATE = """
{% extends 'lab/index.html.j2' %}
{% block html_head_js %}<script src="plotly.min.js"></script>{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block body_header %}{{ super() }}<p style="margin:12px 24px;font:13px system-ui,sans-serif"><a href="index.html">All notebooks</a></p>{% endblock %}
"""

INDEX = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Prompt workbench</title>
<body style="max-width:900px;margin:32px auto;font-family:system-ui,sans-serif">
<h1 style="font-size:22px">Prompt workbench</h1>{notebooks}{failed}
<h2 style="font-size:16px;margin-top:32px">Made {made} with</h2>{installed}</body></html>
"""


def execute(
    notebook: NotebookNode,
    folder: Path,
    size: Size = "full",
    kernel: str = "python3",
    seconds: int | None = None,
) -> None:
    """Runs the cells of a notebook in place, and puts HTML in the place of every widget and figure.

    Args:
        notebook: gets the outputs; also those up to a failure.
        folder: what its paths are relative to.
        size: whether to do what a person would do in a test, or for the report.
        kernel: the name of a kernelspec.
        seconds: the most that one cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    own = notebook.cells
    client = NotebookClient(
        notebook, timeout=seconds, kernel_name=kernel, resources={"metadata": {"path": str(folder)}}
    )
    try:
        notebook.cells = [step for cell in own for step in (cell, *_person(cell, size))]
        client.reset_execution_trackers()
        with client.setup_kernel():
            try:
                for index, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, index)
            finally:
                _stand_still(client, own)
    finally:
        notebook.cells = own


def _person(cell: NotebookNode, size: Size) -> list[NotebookNode]:
    does = cell.metadata.get("workbench", {}).get(size)
    return [nbformat.v4.new_code_cell(does)] if does else []


def _stand_still(client: NotebookClient, cells: list[NotebookNode]) -> None:
    """Asks the kernel what its widgets show now, at the end, as a page would, and writes that into the outputs."""
    outputs = [o.data for cell in cells for o in cell.get("outputs", []) if "data" in o]
    models = [data[WIDGET]["model_id"] for data in outputs if WIDGET in data]
    ask = nbformat.v4.new_code_cell(f"from workbench.views.still import publish\npublish({models!r})")
    client.nb.cells.append(ask)
    client.execute_cell(ask, len(client.nb.cells) - 1)
    stills = next(output.data[STILLS] for output in ask.outputs if STILLS in output.get("data", {}))
    for data in outputs:
        if WIDGET in data:
            data["text/html"] = stills[data.pop(WIDGET)["model_id"]]
        elif FIGURE in data:
            data["text/html"] = figure_html(data.pop(FIGURE))


def page(notebook: NotebookNode, title: str) -> str:
    """A notebook that was executed as HTML, for a folder that holds plotly.min.js."""
    notebook.metadata["title"] = title
    html, _ = HTMLExporter(raw_template=TEMPLATE).from_notebook_node(notebook)
    return _linked(html)


def report(folder: Path = NOTEBOOKS, out: Path = REPORTS, size: Size = "full") -> list[str]:
    """Executes every notebook of a folder and writes one HTML site; gives the names of those that failed.

    The last one goes first, so that the overview, which is the first, lists the runs of the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    failed = []
    for path in sorted(folder.glob("*.ipynb"), reverse=True):
        started = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        try:
            execute(notebook, folder, size)
        except CellExecutionError as error:
            failed.append(path.name)
            print(f"{path.name}: {error}", file=sys.stderr)
        (out / f"{path.stem}.html").write_text(page(notebook, path.stem), encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - started:.0f} s")
    text = INDEX.format(
        notebooks=Notebooks(folder).table_html(),
        failed=f"<p>Failed, and incomplete here: {', '.join(failed)}</p>" if failed else "",
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        installed=Installed().table_html(),
    )
    (out / "index.html").write_text(_linked(text), encoding="utf-8")
    return failed


def _linked(html: str) -> str:
    """Links to notebooks lead to their pages."""
    return re.sub(r'href="(?:[^":]*/)?([\w.-]+)\.ipynb"', r'href="\1.html"', html)


def main() -> int:
    """Writes the site; 1 where a notebook failed."""
    parser = argparse.ArgumentParser(description="Executes all notebooks and writes one HTML site.")
    parser.add_argument("--out", type=Path, default=REPORTS, help="the folder of the site")
    parser.add_argument("--size", choices=("small", "full"), default="full", help="small: a trial")
    ask = parser.parse_args()
    failed = report(out=ask.out, size=ask.size)
    print(ask.out / "index.html")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
