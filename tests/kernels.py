"""The kernels that notebooks are tested on: the ipykernel that is installed, and an earlier one that behaves otherwise.

On ipykernel 7.4 what a page sends while a cell runs waits for that cell; on 7.3 it may run meanwhile, in a thread of
its own. So a panel that works on one may hang, or race, on the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: The other version; the one that is installed is pinned in constraints.txt.
OTHER = "7.3.0"
INSTALLED, EARLIER = "installed", f"ipykernel-{OTHER}"


def write_kernels(home: Path, other: Path) -> None:
    """Two kernelspecs below `home`: this environment as it is, and with the ipykernel that lies in `other` put first."""
    for name, first in {INSTALLED: [], EARLIER: [other]}.items():
        folder = home / "kernels" / name
        folder.mkdir(parents=True)
        search = [*first, ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": name,
            "language": "python",
            "env": {"PYTHONPATH": os.pathsep.join(map(str, search)), "HF_HUB_OFFLINE": "1"},
        }
        (folder / "kernel.json").write_text(json.dumps(spec))


def fetch_other(cache: Path) -> None:
    """Puts the other ipykernel, and nothing that it depends on, below `cache`; once.

    Without a network the tests that need it are skipped, but never where CI is set.
    """
    folder = cache / EARLIER
    if not folder.exists():
        part = cache / f"{EARLIER}.{os.getpid()}.part"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--retries=1",
            "--timeout=20",
        ]
        done = subprocess.run(
            [*command, "--disable-pip-version-check", f"--target={part}", f"ipykernel=={OTHER}"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            reason = f"pip could not get ipykernel {OTHER}: {done.stderr.strip().splitlines()[-1:]}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
        part.rename(folder)
