"""The command line without a model: help, defaults, wrong words. As a process it is tested in tests/test_cli.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workbench import cli
from workbench.cli.options import settings, value_of
from workbench.cli.train import PromptOptions
from workbench.errors import WorkbenchError
from workbench.tests import zoo

TRAIN = ["train", "--task", "reading", "--backbone", "tiny-llama", "--run", "{new}"]


def test_every_method_can_be_named_with_its_settings() -> None:
    """Protects the shell: what `--method` and `--method-settings` say is the configuration that is trained."""
    backbone = zoo.backbone("llama")
    made = PromptOptions(method="p-tuning", tokens=3, method_settings=("encoder=lstm", "hidden=8")).make(
        backbone
    )
    assert made.kind == "p-tuning" and (made.config.encoder, made.config.hidden, made.config.tokens) == (
        "lstm",
        8,
        3,
    )
    deep = PromptOptions(
        method="deep-prompt", tokens=2, method_settings=('layers=["input", 1]', "form=cut")
    ).make(backbone)
    assert deep.config.layers == ("input", 1) and deep.config.form == "cut"
    lora = PromptOptions(
        method="lora", prompt_seed=3, method_settings=("rank=2", 'targets=["up_proj"]')
    ).make(backbone)
    assert (lora.config.rank, lora.config.targets, lora.config.seed) == (2, ("up_proj",), 3)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as left:  # tyro's own way out, for --help and wrong usage
        code = int(left.code or 0)
    return code, *capsys.readouterr()


def test_help_is_light_and_names_every_command() -> None:
    """The overview answers at once: no torch, no tyro."""
    code = (
        "import sys; from workbench.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {command} " in done.stdout for command in cli.COMMANDS)
    assert not {"torch", "transformers", "tyro", "datasets"} & set(done.stderr.split())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_explains_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help ends well, opens with the command's own words, and no option stands without any."""
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    words = " ".join(out.replace("│", " ").split())
    assert words.startswith(f"usage: workbench {command} ")
    options = _options(out)
    assert len(options) == out.count("│ --")
    for option, text in options.items():
        assert text.replace("(required)", "").split("(default:")[0].strip(), (
            f"{command} {option} is not explained"
        )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--task", "redaing", "--backbone", "x", "--run", "{new}"], "did you mean 'reading'"),
        (["train", "--task", "{bad}", "--backbone", "x", "--run", "{new}"], "bad.jsonl"),
        (["train", "--task", "reading", "--backbone", "{new}/x", "--run", "{new}"], "no folder"),
        (
            ["train", "--task", "reading", "--backbone", "x", "--run", "{new}", "--settings", "shots"],
            "name=value",
        ),
        (["train", "--task", "reading", "--backbone", "x", "--run", "{new}", "--steps", "0"], "at least 1"),
        ([*TRAIN, "--method", "deep-promt"], "did you mean 'deep-prompt'"),
        ([*TRAIN, "--method", "prefix", "--method-settings", "mpl=1"], "did you mean 'mlp'"),
        ([*TRAIN, "--method", "initial-state"], "not recurrent"),
        ([*TRAIN, "--method", "lora", "--tokens", "4"], "lora has no tokens; leave --tokens out"),
        ([*TRAIN, "--method", "lora", "--prior", "isotropic"], "lora has no prior; leave --prior out"),
        ([*TRAIN, "--method", "lora", "--method-settings", "targets=q_prj"], "did you mean 'q_proj'"),
        (
            [*TRAIN, "--method", "lora", "--method-settings", "rank=abc"],
            "rank of the method lora is 'abc'; it must be a whole number",
        ),
        (
            [*TRAIN, "--detach", "--method", "lora", "--method-settings", "alpha=true"],
            "alpha of the method lora is True; it must be a number",
        ),
        (
            [*TRAIN, "--method", "deep-prompt", "--method-settings", "layers=input"],
            "layers of the method deep-prompt is 'input'; it must be a list, each of it a whole number or 'input'",
        ),
        (
            [*TRAIN, "--method", "prefix", "--method-settings", "mlp=3"],
            "mlp of the method prefix is 3; it must be true or false",
        ),
        (
            [*TRAIN, "--method", "p-tuning", "--method-settings", "encoder=null"],
            "encoder of the method p-tuning is None; it must be 'mlp' or 'lstm'",
        ),
        (
            [*TRAIN, "--prior", "isotropic", "std=abc"],
            "std of the prior isotropic is 'abc'; it must be a number",
        ),
        (["train", "--resume", "--run", "{new}"], "holds no run"),
        (["evaluate", "--run", "{new}"], "holds no run"),
        (["evaluate", "--backbone", "x"], "--task"),
        (["evaluate", "--answer", "a"], "no --task"),
        (["generate", "hello"], "--backbone"),
        (["generate", "hello", "--run", "{new}"], "holds no run"),
        (["runs", "{new}"], "no runs"),
        ([*TRAIN, "--questions", "3"], "--questions goes with --detach"),
        ([*TRAIN, "--detach", "--method", "deep-promt"], "did you mean 'deep-prompt'"),
        ([*TRAIN, "--detach", "--resume"], "give no other option but --run"),
        (["train", "--resume", "--detach", "--run", "{new}"], "holds no run"),
        (["pause", "{new}"], "holds no run"),
        (["resume", "{new}"], "holds no run"),
        (["stop", "{new}"], "holds no run"),
        (["tasks", "--group", "arithmetik"], "did you mean 'arithmetic'"),
    ],
)
def test_what_the_user_can_put_right(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence on stderr, nothing on stdout, code 2, and no directory made."""
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n')
    places = {"{new}": str(tmp_path / "new"), "{bad}": str(tmp_path / "bad.jsonl")}
    filled = [places.get(word, word.replace("{new}", places["{new}"])) for word in words]
    code, out, err = run(capsys, *filled)
    assert (code, out) == (2, "")
    assert said in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--task", "reading", "--backbone", "x", "--run", "y", "--stesp", "3"], "--stesp"),
        (["train", "--task", "reading", "--run", "y"], "--backbone"),
        (["train", "--resume", "--run", "y", "--steps", "9"], "--steps"),
        (["generate", "hello", "--max-new-tokens", "many"], "--max-new-tokens"),
    ],
)
def test_wrong_usage_names_the_option(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown option, a missing one, one that would be ignored, a value of the wrong type."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_the_prompt_on_the_command_line_is_the_one_in_python() -> None:
    """The same defaults: a run started from a shell and one from a notebook are the same run."""
    from workbench.cli.train import PromptOptions
    from workbench.methods.soft_prompt import SoftPromptConfig

    options = PromptOptions()
    assert SoftPromptConfig(options.tokens, options.description(), options.prompt_seed) == SoftPromptConfig()


def test_settings_and_values() -> None:
    """Values are JSON where they can be, and text otherwise."""
    found = settings(("shots=4", "std=0.1", "style=plain", "flag=true", "text=a=b"), "the task")
    assert found == {"shots": 4, "std": 0.1, "style": "plain", "flag": True, "text": "a=b"}
    with pytest.raises(WorkbenchError, match="name=value"):
        settings(("=4",), "the task")
    assert value_of(["--run", "a", "--n", "3"], "--run") == "a"
    assert value_of(["--run=a"], "--run") == "a"
    assert value_of(["--running", "a"], "--run") is None


def _options(text: str) -> dict[str, str]:
    """Option to its explanation, read off a help page; groups' boxes are taken off."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        inner = line.strip("│ ")
        if line.startswith("│ --"):
            name, _, rest = inner.partition("  ")
            found[name] = rest
        elif line.startswith("│  ") and name:
            found[name] += " " + inner
        else:
            name = ""
    return found
