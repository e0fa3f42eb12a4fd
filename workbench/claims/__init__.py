"""Claims: what a paper says, tried on the bundled backbones, with a verdict by a rule that was there before.

from workbench.claims import reproduce
evidence = reproduce("E1")                          # trains, measures, writes data/evidence/E1.json

claim.py            Claim, CLAIMS, and `reproduce`, which makes an evidence file
rule.py             Rule: data/evidence/rules/E1.json, and the verdict that it gives to numbers
statistics.py       intervals and tests, as pure functions of numbers
study.py            the prompts that a claim is tried on, trained many at a time, kept under runs/evidence
space.py            where vectors lie among a backbone's tokens
domains.py          two domains in one space, and what lies between them
vaes.py             the VAEs that a claim is tried on
distilling.py       the prompts that a chain of thought is distilled into
answer_paths.py     answers as paths, beside walks at random behind the same questions
task_clusters.py    texts of several tasks, read as they are and as controls read them
memory.py           what methods keep of a story's prompt, and what that costs
kept.py             numbers that took a while, found again
e1.py …             one claim each (arXiv 2412.18582)
p1.py …             one claim each (arXiv 2311.01981)
"""

from workbench.claims.answer_paths import PathsConfig
from workbench.claims.claim import CLAIMS, Claim, reproduce
from workbench.claims.distilling import DistilConfig
from workbench.claims.e1 import PriorDecides
from workbench.claims.e2 import QualityIsTheSame
from workbench.claims.e3 import FarRegionsWork
from workbench.claims.e4 import DistantTakesLonger
from workbench.claims.e5 import PathsAreNotLocal
from workbench.claims.e6 import DistantApartCloseTogether
from workbench.claims.e7 import InterpolatedStayAndWork
from workbench.claims.e8 import VAECollapses
from workbench.claims.e9 import PosteriorDistils
from workbench.claims.memory import MapsConfig, MemoryConfig
from workbench.claims.p1 import RecurrentForgets
from workbench.claims.p2 import ProSGKeeps
from workbench.claims.rule import Rule, load_rule
from workbench.claims.study import StudyConfig
from workbench.claims.task_clusters import ClustersConfig
from workbench.claims.vaes import VAEsConfig

__all__ = [
    "CLAIMS",
    "Claim",
    "ClustersConfig",
    "DistantApartCloseTogether",
    "DistantTakesLonger",
    "DistilConfig",
    "FarRegionsWork",
    "InterpolatedStayAndWork",
    "MapsConfig",
    "MemoryConfig",
    "PathsAreNotLocal",
    "PathsConfig",
    "PosteriorDistils",
    "PriorDecides",
    "ProSGKeeps",
    "QualityIsTheSame",
    "RecurrentForgets",
    "Rule",
    "StudyConfig",
    "VAECollapses",
    "VAEsConfig",
    "load_rule",
    "reproduce",
]
