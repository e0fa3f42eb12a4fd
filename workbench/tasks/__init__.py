"""Tasks: examples, splits and metrics; the small world that generates them; readers of people's own files."""

from workbench.tasks.encode import Encoded, TextConfig, encode, encode_question
from workbench.tasks.metrics import METRICS, Metric
from workbench.tasks.task import Example, Examples, Task, list_tasks, load_task

__all__ = [
    "METRICS",
    "Encoded",
    "Example",
    "Examples",
    "Metric",
    "Task",
    "TextConfig",
    "encode",
    "encode_question",
    "list_tasks",
    "load_task",
]
