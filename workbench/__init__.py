"""A workbench for people who study prompts: train them on frozen language models, and see what happened.

    import workbench as wb
    backbone = wb.load_backbone("tiny-llama")
    task = wb.load_task("reading")
    method = wb.SoftPrompt(backbone, tokens=20)
    for step in wb.fit(backbone, method, task, run_dir="runs/first"):
        print(step.index, step.loss)
    wb.evaluate(backbone, task, method=method)

Names are imported when they are first used, so that `import workbench` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from workbench.analysis.clause_probes import train_probes
    from workbench.analysis.forgetting import Forgetting, ForgettingStep, follow_forgetting, forgetting
    from workbench.analysis.trace import Trace, trace
    from workbench.backbones.backbone import Backbone, bundled, load_backbone
    from workbench.errors import WorkbenchError
    from workbench.methods import priors
    from workbench.methods.deep_prompt import DeepPrompt, DeepPromptConfig
    from workbench.methods.generate import GenerateConfig, generate, stream
    from workbench.methods.initial_state import InitialState, InitialStateConfig
    from workbench.methods.lora import LoRA, LoRAConfig
    from workbench.methods.method import Method, load_method
    from workbench.methods.p_tuning import PTuning, PTuningConfig
    from workbench.methods.peft_format import load_peft, save_peft
    from workbench.methods.pointer_cache import PointerCache, PointerCacheConfig
    from workbench.methods.prefix_prompt import PrefixPrompt, PrefixPromptConfig
    from workbench.methods.prompt_bias import PromptBias, PromptBiasConfig
    from workbench.methods.soft_prompt import SoftPrompt, SoftPromptConfig
    from workbench.methods.synthetic_gradient import (
        SyntheticGradient,
        SyntheticGradientConfig,
        bundled_synthesiser,
    )
    from workbench.tasks.checks import MustChoose, MustContain, MustMatch, MustNotContain
    from workbench.tasks.clauses import Clause, ClausePrompt, from_story, load_prompts, split_clauses
    from workbench.tasks.encode import TextConfig
    from workbench.tasks.task import Example, Task, list_tasks, load_task
    from workbench.training.bank import BankStep, fit_many
    from workbench.training.config import FitConfig
    from workbench.training.cost import Cost, estimate
    from workbench.training.evaluate import Evaluation, compare, evaluate
    from workbench.training.fit import fit, resume
    from workbench.training.job import Job, JobConfig
    from workbench.training.member import Step
    from workbench.training.run import Run

_HOMES = {
    "train_probes": "analysis.clause_probes",
    "Forgetting": "analysis.forgetting",
    "ForgettingStep": "analysis.forgetting",
    "follow_forgetting": "analysis.forgetting",
    "forgetting": "analysis.forgetting",
    "Trace": "analysis.trace",
    "trace": "analysis.trace",
    "Backbone": "backbones.backbone",
    "bundled": "backbones.backbone",
    "load_backbone": "backbones.backbone",
    "WorkbenchError": "errors",
    "priors": "methods",
    "GenerateConfig": "methods.generate",
    "generate": "methods.generate",
    "stream": "methods.generate",
    "Method": "methods.method",
    "load_method": "methods.method",
    "DeepPrompt": "methods.deep_prompt",
    "DeepPromptConfig": "methods.deep_prompt",
    "InitialState": "methods.initial_state",
    "InitialStateConfig": "methods.initial_state",
    "LoRA": "methods.lora",
    "LoRAConfig": "methods.lora",
    "PTuning": "methods.p_tuning",
    "PTuningConfig": "methods.p_tuning",
    "load_peft": "methods.peft_format",
    "save_peft": "methods.peft_format",
    "PointerCache": "methods.pointer_cache",
    "PointerCacheConfig": "methods.pointer_cache",
    "PrefixPrompt": "methods.prefix_prompt",
    "PrefixPromptConfig": "methods.prefix_prompt",
    "PromptBias": "methods.prompt_bias",
    "PromptBiasConfig": "methods.prompt_bias",
    "SoftPrompt": "methods.soft_prompt",
    "SoftPromptConfig": "methods.soft_prompt",
    "SyntheticGradient": "methods.synthetic_gradient",
    "SyntheticGradientConfig": "methods.synthetic_gradient",
    "MustChoose": "tasks.checks",
    "MustContain": "tasks.checks",
    "MustMatch": "tasks.checks",
    "MustNotContain": "tasks.checks",
    "Clause": "tasks.clauses",
    "ClausePrompt": "tasks.clauses",
    "from_story": "tasks.clauses",
    "load_prompts": "tasks.clauses",
    "split_clauses": "tasks.clauses",
    "bundled_synthesiser": "methods.synthetic_gradient",
    "TextConfig": "tasks.encode",
    "Example": "tasks.task",
    "Task": "tasks.task",
    "list_tasks": "tasks.task",
    "load_task": "tasks.task",
    "BankStep": "training.bank",
    "fit_many": "training.bank",
    "Cost": "training.cost",
    "estimate": "training.cost",
    "FitConfig": "training.config",
    "Evaluation": "training.evaluate",
    "compare": "training.evaluate",
    "evaluate": "training.evaluate",
    "Step": "training.member",
    "fit": "training.fit",
    "resume": "training.fit",
    "Job": "training.job",
    "JobConfig": "training.job",
    "Run": "training.run",
}
_ROOMS = ("analysis", "backbones", "claims", "methods", "tasks", "training", "views")
__all__ = [  # written out, so that tools which only read see it
    "Backbone",
    "BankStep",
    "Clause",
    "ClausePrompt",
    "Cost",
    "DeepPrompt",
    "DeepPromptConfig",
    "Evaluation",
    "Example",
    "FitConfig",
    "Forgetting",
    "ForgettingStep",
    "GenerateConfig",
    "InitialState",
    "InitialStateConfig",
    "Job",
    "JobConfig",
    "LoRA",
    "LoRAConfig",
    "Method",
    "MustChoose",
    "MustContain",
    "MustMatch",
    "MustNotContain",
    "PTuning",
    "PTuningConfig",
    "PointerCache",
    "PointerCacheConfig",
    "PrefixPrompt",
    "PrefixPromptConfig",
    "PromptBias",
    "PromptBiasConfig",
    "Run",
    "SoftPrompt",
    "SoftPromptConfig",
    "Step",
    "SyntheticGradient",
    "SyntheticGradientConfig",
    "Task",
    "TextConfig",
    "Trace",
    "WorkbenchError",
    "__version__",
    "bundled",
    "bundled_synthesiser",
    "compare",
    "estimate",
    "evaluate",
    "fit",
    "fit_many",
    "follow_forgetting",
    "forgetting",
    "from_story",
    "generate",
    "list_tasks",
    "load_backbone",
    "load_method",
    "load_peft",
    "load_prompts",
    "load_task",
    "priors",
    "resume",
    "save_peft",
    "split_clauses",
    "stream",
    "trace",
    "train_probes",
]


def __getattr__(name: str) -> Any:
    if name == "priors":
        return importlib.import_module("workbench.methods.priors")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"workbench.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"workbench.{name}")
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
