"""Views: tables that can be drawn, and the notebook's panels. The only room that imports plotly or ipywidgets."""

from workbench.views.answers import Answers
from workbench.views.answers_beside import AnswersBeside
from workbench.views.browser import RunBrowser
from workbench.views.cards import Cards, Forgetting
from workbench.views.curves import Curves
from workbench.views.drift import Drift
from workbench.views.first_prompt import FirstPrompt
from workbench.views.live import LiveFigure
from workbench.views.movement import Movement
from workbench.views.overview import Claims, Installed, Notebooks, Runs
from workbench.views.view import View

__all__ = [
    "Answers",
    "AnswersBeside",
    "Cards",
    "Claims",
    "Curves",
    "Drift",
    "FirstPrompt",
    "Forgetting",
    "Installed",
    "LiveFigure",
    "Movement",
    "Notebooks",
    "RunBrowser",
    "Runs",
    "View",
]
