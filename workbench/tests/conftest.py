"""What every unit test runs under: no network, two threads, few and repeatable hypothesis examples."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# Before torch or a Hugging Face library is imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "workbench",
    deadline=None,  # the first example pays for imports and warm-up
    max_examples=15,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("workbench")


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small random model with its tokenizer, for what loads a backbone by its name."""
    from workbench.tests import zoo

    folder = tmp_path_factory.mktemp("backbones") / "small-llama"
    small = zoo.backbone("llama")
    small.model.save_pretrained(folder)
    small.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules of the claims, committed, in a repository of their own. A test that changes one works on a copy."""
    from workbench.claims.rule import RULES

    home = tmp_path_factory.mktemp("repository")
    shutil.copytree(RULES, home / "rules")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "rules"]):
        subprocess.run(["git", *words], cwd=home, check=True)
    return home / "rules"
