"""Views: tables that can be drawn, and the notebook's panels. The only room that imports plotly or ipywidgets.

Names are imported when they are first used: a page of tables does not wait for the library that draws figures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.views.activation_map import ActivationMap
    from workbench.views.activation_space import ActivationSpace
    from workbench.views.answers import Answers
    from workbench.views.answers_beside import AnswersBeside
    from workbench.views.browser import RunBrowser
    from workbench.views.brushed import Brushed
    from workbench.views.cards import Cards, Forgetting
    from workbench.views.change_map import ChangeMap
    from workbench.views.clause_map import ClauseMap
    from workbench.views.cluster_numbers import ClusterNumbers
    from workbench.views.curves import Curves
    from workbench.views.drift import Drift
    from workbench.views.figures import figure
    from workbench.views.first_prompt import FirstPrompt
    from workbench.views.forgetting_steps import ForgettingSteps
    from workbench.views.generation_walk import GenerationWalk
    from workbench.views.influence_curves import InfluenceCurves
    from workbench.views.landscape import Landscape
    from workbench.views.layer_activations import LayerActivations
    from workbench.views.layer_alignment import LayerAlignment
    from workbench.views.live import LiveFigure
    from workbench.views.matching_curves import MatchingCurves
    from workbench.views.movement import Movement
    from workbench.views.overview import Claims, Installed, Notebooks, Runs
    from workbench.views.path_numbers import PathNumbers
    from workbench.views.prior_posterior import PriorPosterior
    from workbench.views.prior_samples import PriorSamples
    from workbench.views.selected_texts import SelectedTexts
    from workbench.views.sentence_paths import SentencePaths
    from workbench.views.shift import Shift
    from workbench.views.synthesisers import Synthesisers
    from workbench.views.view import View
    from workbench.views.weight_change import WeightChange
    from workbench.views.written_text import WrittenText

_HOMES = {
    "ActivationMap": "activation_map",
    "ActivationSpace": "activation_space",
    "Answers": "answers",
    "AnswersBeside": "answers_beside",
    "Brushed": "brushed",
    "Cards": "cards",
    "ChangeMap": "change_map",
    "Claims": "overview",
    "ClauseMap": "clause_map",
    "ClusterNumbers": "cluster_numbers",
    "Curves": "curves",
    "Drift": "drift",
    "FirstPrompt": "first_prompt",
    "Forgetting": "cards",
    "ForgettingSteps": "forgetting_steps",
    "GenerationWalk": "generation_walk",
    "InfluenceCurves": "influence_curves",
    "Installed": "overview",
    "Landscape": "landscape",
    "LayerActivations": "layer_activations",
    "LayerAlignment": "layer_alignment",
    "LiveFigure": "live",
    "MatchingCurves": "matching_curves",
    "Movement": "movement",
    "Notebooks": "overview",
    "PathNumbers": "path_numbers",
    "PriorPosterior": "prior_posterior",
    "PriorSamples": "prior_samples",
    "RunBrowser": "browser",
    "Runs": "overview",
    "SelectedTexts": "selected_texts",
    "SentencePaths": "sentence_paths",
    "Shift": "shift",
    "Synthesisers": "synthesisers",
    "View": "view",
    "WeightChange": "weight_change",
    "WrittenText": "written_text",
    "figure": "figures",
}
__all__ = [  # written out, so that tools which only read see it
    "ActivationMap",
    "ActivationSpace",
    "Answers",
    "AnswersBeside",
    "Brushed",
    "Cards",
    "ChangeMap",
    "Claims",
    "ClauseMap",
    "ClusterNumbers",
    "Curves",
    "Drift",
    "FirstPrompt",
    "Forgetting",
    "ForgettingSteps",
    "GenerationWalk",
    "InfluenceCurves",
    "Installed",
    "Landscape",
    "LayerActivations",
    "LayerAlignment",
    "LiveFigure",
    "MatchingCurves",
    "Movement",
    "Notebooks",
    "PathNumbers",
    "PriorPosterior",
    "PriorSamples",
    "RunBrowser",
    "Runs",
    "SelectedTexts",
    "SentencePaths",
    "Shift",
    "Synthesisers",
    "View",
    "WeightChange",
    "WrittenText",
    "figure",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench.views' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"workbench.views.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
