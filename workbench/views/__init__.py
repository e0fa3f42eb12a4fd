"""Views: tables that can be drawn, and the notebook's panels. The only room that imports plotly or ipywidgets."""

from workbench.views.answers import Answers
from workbench.views.curves import Curves
from workbench.views.first_prompt import FirstPrompt
from workbench.views.live import LiveFigure
from workbench.views.movement import Movement
from workbench.views.view import View

__all__ = ["Answers", "Curves", "FirstPrompt", "LiveFigure", "Movement", "View"]
