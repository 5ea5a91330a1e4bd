"""Asks what to do, prints the command that does it, and runs that command."""

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import questionary
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings

from fedsparse.catalogue import MODELS_OF
from fedsparse.config import Config
from fedsparse.config.effects import has_effect
from fedsparse.config.needs import kind_of
from fedsparse.config.settings import Given, OneOf
from fedsparse.errors import ConfigError

CHOSEN = ("dataset", "distribution", "model", "compressor", "topology")
TYPED = ("beta", "classes-per-client", "density", "rounds", "seed")
"""Settings that are asked for where they have an effect beside the chosen ones."""
USUAL_SPARSITY = 0.5
OTHER = "another one ..."


def menu(settings: Given) -> int:
    """`main.py menu`; returns the exit code of the command.

    Raises:
        ConfigError: there is no terminal, or nothing to show.
    """
    from fedsparse.commands import main, program_name

    if other := sorted(settings.typed - {"logdir"}):
        raise ConfigError(f"--{other[0]} has no effect on the menu: it asks for the settings")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("the menu asks its questions in a terminal; without one, see --help")
    logdir = Config.from_mapping(settings).logdir
    words = command(logdir)
    if words[0] == "tensorboard":
        print(shlex.join(words))
        return 0
    if "logdir" in settings and words[0] != "report":
        words += ["--logdir", logdir]
    program = {"main.py": "python main.py"}.get(program_name(), program_name())
    print(f"{program} {shlex.join(words)}", flush=True)
    return main(words)


def command(logdir: str) -> list[str]:
    """Ask for one thing to do; returns the words of a command line that does it."""
    tasks: dict[str, Callable[[], list[str]]] = {
        "a quick test, which takes seconds": lambda: ["--quick-test"],
        "choose data, model, compressor, topology; and run": lambda: flags(job()),
        "compare all compressors on one job": lambda: ["compare-all", *flags(job(without=("compressor", "density")))],
        "show results": lambda: results(Path(logdir).expanduser()),
    }
    return tasks[select("What shall it be?", list(tasks))]()


def job(without: Sequence[str] = ()) -> dict[str, str]:
    """Ask for the settings of a run; those that are not the defaults."""
    chosen: dict[str, str] = {}
    for key in (key for key in CHOSEN if key not in without):
        possible = [name for name in names(key, chosen) if not mistake({**chosen, key: name})]
        name = select(question(key), [*possible, OTHER], default(key) if default(key) in possible else None)
        chosen[key] = typed(key, "", chosen) if name == OTHER else name
    if chosen["topology"] not in ("auto", "dense"):
        chosen["sparsity"] = typed("sparsity", str(USUAL_SPARSITY), chosen)
    for key in (key for key in TYPED if key not in without and has_effect(key, Config.from_mapping(chosen))):
        chosen[key] = typed(key, default(key), chosen)
    return {key: value for key, value in chosen.items() if value != default(key)}


def results(logdir: Path) -> list[str]:
    """Ask for run folders and for how to show them.

    Raises:
        ConfigError: there are none.
    """
    folders = [path for path in logdir.glob("*/") if any(path.glob("config.yaml")) or any(path.glob("*/result.json"))]
    if not folders:
        raise ConfigError(f"there are no runs in {logdir}")
    newest = sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)
    none = "choose with the space bar"
    picked = answer_of_list(
        questionary.checkbox("Which runs?", [path.name for path in newest], validate=lambda some: bool(some) or none)
    )
    places = [str(logdir / name) for name in picked]
    ways = {
        "tables, curves and a page": ["report", *places],
        "what each run said at its end": ["report", *places, "--summary"],
        "the command for TensorBoard": ["tensorboard", "--logdir", places[0] if len(places) == 1 else str(logdir)],
    }
    return ways[select("How?", list(ways))]


def flags(settings: Mapping[str, str]) -> list[str]:
    """The settings as words of a command line."""
    return [word for key, value in settings.items() for word in (f"--{key}", value)]


def names(key: str, chosen: Mapping[str, str]) -> list[str]:
    """The names that a setting may have beside those chosen so far."""
    field = Config.model_fields[key.replace("-", "_")]
    allowed = next(list(mark.names) for mark in field.metadata if isinstance(mark, OneOf))
    fitting = MODELS_OF.get(kind_of(chosen.get("dataset", "")))
    return [name for name in allowed if key != "model" or fitting is None or name in ("auto", *fitting)]


def question(key: str) -> str:
    """A setting's name, and the beginning of its help."""
    help = str(Config.model_fields[key.replace("-", "_")].description).replace("\n", " ")
    return f"{key}: {re.split(r'[.;:]( |$)', help)[0]}"


def default(key: str) -> str:
    """A setting's default."""
    return str(Config.model_fields[key.replace("-", "_")].default)


def mistake(chosen: Mapping[str, str]) -> str:
    """What is wrong with the settings, in one line; empty when nothing is."""
    usual = {"sparsity": USUAL_SPARSITY} if chosen.get("topology", "auto") not in ("auto", "dense") else {}
    try:
        Config.from_mapping({**usual, **chosen})
    except ConfigError as error:
        return str(error)
    return ""


def typed(key: str, usual: str, chosen: Mapping[str, str]) -> str:
    """Ask for a setting in words, until it is right."""
    return answer(questionary.text(question(key), usual, validate=lambda text: mistake({**chosen, key: text}) or True))


def select(question: str, choices: Sequence[str], usual: str | None = None) -> str:
    """Ask for one of the choices."""
    return answer_of_list(questionary.select(question, choices, default=usual))


def answer_of_list(question: questionary.Question) -> Any:
    """As ``answer``, for a list, in which questionary gives Ctrl-D no meaning."""
    bindings = KeyBindings()

    @bindings.add("c-d")
    def leave(event: KeyPressEvent) -> None:
        event.app.exit(exception=EOFError)

    question.application.key_bindings = merge_key_bindings([question.application.key_bindings or bindings, bindings])
    return answer(question)


def answer(question: questionary.Question) -> Any:
    """The answer.

    Raises:
        KeyboardInterrupt: Ctrl-C or Ctrl-D.
    """
    try:
        return question.unsafe_ask()
    except EOFError:
        raise KeyboardInterrupt from None
