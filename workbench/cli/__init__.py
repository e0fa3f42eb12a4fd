"""`workbench …`: the same functions as in Python, from a shell.

Each command is a dataclass in a file of this room: its fields are the options (the library's configurations among
them, as they are), its docstring is the help, its `run` does the work. What a command needs is imported when it is
asked for, so `workbench --help` answers at once. Results go to stdout; progress and errors to stderr. Nothing here
knows how to train, evaluate or generate.

Exit codes: 0 done; 1 something unexpected, with a traceback; 2 wrong usage, or an error that says what to put right;
130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from workbench.errors import WorkbenchError, unknown


class Command(NamedTuple):
    """Where a command is (a dataclass, or a function that chooses one), and what it does in a few words."""

    module: str
    name: str
    summary: str


COMMANDS = {
    "train": Command("train", "train", "train a prompt on a frozen backbone, and write a run directory"),
    "train-many": Command(
        "train_many", "TrainMany", "train many prompts at once: every prior with every seed"
    ),
    "evaluate": Command(
        "evaluate", "Evaluate", "score a trained prompt beside no prompt and one written by hand"
    ),
    "generate": Command("generate", "Generate", "let a backbone write, with a trained prompt or without"),
    "runs": Command("lists", "Runs", "list the runs in a folder"),
    "pause": Command("control", "Pause", "hold a job before its next step"),
    "resume": Command("control", "Resume", "let a job go on that was paused, stopped or cut short"),
    "stop": Command("control", "Stop", "end a job, with a checkpoint"),
    "tasks": Command("lists", "Tasks", "list the tasks of the small world"),
    "backbones": Command("lists", "Backbones", "list the bundled backbones"),
    "reproduce": Command("reproduce", "command", "try a claim, and write what was found; or list the claims"),
    "pretrain": Command("pretrain", "Pretrain", "make a bundled backbone from nothing"),
}

OVERVIEW = """\
Train prompts on frozen language models, and see what they learnt.

  workbench COMMAND [OPTIONS]

{commands}

`workbench COMMAND --help` says what a command takes. For a start:

  workbench train --backbone tiny-llama --task reading --run runs/first
  workbench evaluate --run runs/first
  workbench generate --run runs/first "a question"
"""


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command line (this process's own by default); returns the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        return _run(words)
    except WorkbenchError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"workbench: interrupted {stop}".rstrip(), file=sys.stderr)
        return 130
    except BrokenPipeError:  # `workbench tasks | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
        print(OVERVIEW.format(commands="\n".join(lines)), end="")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        raise unknown("command", words[0], COMMANDS)
    command = COMMANDS[words[0]]
    kind = getattr(importlib.import_module(f"workbench.cli.{command.module}"), command.name)
    if not isinstance(kind, type):  # a function that looks at the words to choose the command
        kind = kind(words[1:])

    from workbench.cli.options import parse

    code = parse(kind, words[0], words[1:]).run()
    sys.stdout.flush()
    return code
