"""Work of ours measured beside a peer's: the harness, and one file for each thing that is measured.

`python -m workbench.bench [row …]` runs every row, or those named, and writes data/evidence/bench.json.
Imports nothing on its own: a row's file is loaded when the rows are asked for.
"""
