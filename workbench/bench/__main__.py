"""`python -m workbench.bench [row …]`: a few words of shell around `harness.run`. Measures nothing itself."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workbench.bench import harness
from workbench.errors import WorkbenchError


def main() -> int:
    """Parses the command line; 0 done, 1 a check failed, 2 a wrong name or file."""
    parser = argparse.ArgumentParser(prog="python -m workbench.bench", description=harness.__doc__)
    parser.add_argument(
        "rows", nargs="*", help="names of rows, each as one word to the shell; default: all of them"
    )
    parser.add_argument(
        "--out", type=Path, default=harness.RESULTS, help="where to write (default: %(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    arguments = parser.parse_args()
    try:
        if arguments.list:
            print("\n".join(harness.rows()))
        else:
            harness.run(arguments.rows, arguments.out)
    except (WorkbenchError, harness.Different) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, WorkbenchError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
