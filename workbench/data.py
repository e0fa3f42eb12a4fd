"""Where the bundled data lies: the folder `data/` beside the package, as in a checkout. Holds paths only."""

from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
BACKBONES = DATA / "backbones"
SYNTHESISERS = DATA / "synthesisers"
EVIDENCE = DATA / "evidence"
