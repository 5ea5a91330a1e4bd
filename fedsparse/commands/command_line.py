"""Parses the command line: a command, its files, every setting as a flag. The commands are the caller's."""

import argparse
import textwrap
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn, get_args

from fedsparse.config import GROUPS, KEYS, unknown_key
from fedsparse.config.settings import Given, choices
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import ConfigError

QUICK_TEST = {
    "name": "quick-test",
    "distribution": "dirichlet",
    "beta": "0.1",
    "clients": "20",
    "clients-per-round": "5",
    "rounds": "5",
    "eval-every": "1",
    "workers": "1",
}
"""What ``--quick-test`` stands for: ``configs/quick-test.yaml``, which an installed package does not have."""


class Command(NamedTuple):
    """A command: its function, its help, its further arguments and its own flags."""

    act: str
    """``module:function``, imported when the command is called."""
    help: str
    files: str = ""
    """The name of its further arguments: empty for none, ``FILE`` for one, ``FILE...`` for one or more."""
    own: Mapping[str, str] = {}
    """Flags that are no settings, and their help; each goes to the function as a string."""
    switches: Mapping[str, str] = {}
    """Flags of its own without a value; each that is given goes to the function as ``on``."""
    given: Mapping[str, Any] = {}
    """Settings that the command gives itself."""
    takes: Collection[str] | None = None
    """The settings that it takes, for its help; None for all."""
    has_all: bool = True
    """Whether the settings are checked before the command is imported; False where it reads more of them itself."""
    resumes: bool = False
    """Whether ``--resume`` is the command's own affair."""


class Asked(NamedTuple):
    """What the user typed."""

    command: str
    settings: Given
    files: list[str]
    own: dict[str, str]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises a mistake as a ConfigError, which the user sees as one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(arguments: list[str], commands: Mapping[str, Command], program: str) -> Asked:
    """The command, the settings that ``--config`` and flags give, the command's further arguments, and its own flags.

    Every setting stays a string, because Config alone converts and checks, for flags and YAML alike.

    Raises:
        ConfigError: one line that says what is wrong.
        SystemExit: after ``--help`` or ``--version``.
    """
    pairs = pairwise(["", *arguments])  # because a flag's value may have a command's name
    named = next((word for before, word in pairs if word in commands and not before.startswith("--")), "")
    own = {**commands[named].own, **commands[named].switches} if named else {}
    parser = _parser(commands, named, program)
    for argument in arguments:
        flag = argument.partition("=")[0].removeprefix("--")
        if argument.startswith("--") and flag not in (*KEYS, *own, "config", "quick-test", "help", "version"):
            if having := [name for name, c in commands.items() if flag in (*c.own, *c.switches)]:
                raise ConfigError(f"--{flag} belongs to {' and '.join(having)}, not to {named or 'run'}")
            raise ConfigError(unknown_key(flag, "--"))
    flags = vars(parser.parse_intermixed_args(arguments))
    command, files = flags.pop("command"), flags.pop("files")
    if command not in commands:
        raise ConfigError(f"unknown command {command!r}; the commands are {', '.join(commands)}")
    wanted = commands[command].files
    if wanted and not files:
        raise ConfigError(f"{command} needs a {wanted}: {program} {command} {wanted}")
    if not wanted.endswith("...") and len(files) > bool(wanted):
        raise ConfigError(f"unrecognized arguments: {' '.join(files[bool(wanted) :])}")
    is_quick = flags.pop("quick-test")
    if is_quick and commands[command].takes is not None:
        raise ConfigError(f"--quick-test has no effect on {command}")
    settings = Given(QUICK_TEST if is_quick else {})
    for file in flags.pop("config"):
        settings |= read_yaml(file)
    own_given = {flag: str(settings.pop(flag)) for flag in own if flag in settings}  # from a file
    own_given |= {flag: flags.pop(flag) for flag in own if flag in flags}
    settings |= flags
    settings.typed = frozenset(flags)
    return Asked(command, settings, files, own_given)


def _parser(commands: Mapping[str, Command], named: str, program: str) -> Parser:
    """The parser, with the help of the command ``named``, or of the program when ``named`` is empty."""
    parser = Parser(
        program,
        usage=f"{program} {named or '[COMMAND]'} [FILE...] [--SETTING VALUE...]",
        description=_description(commands, named, program),
        allow_abbrev=False,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fedsparse {_version()}")
    parser.add_argument("command", nargs="?", default="run", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument(
        "--config", metavar="FILE", action="append", default=[], help="YAML file of settings; several merge"
    )
    own, switches = (commands[named].own, commands[named].switches) if named else ({}, {})
    taken = (commands[named].takes or ()) if named else KEYS  # because the program's help shows all settings
    takes_all = not named or commands[named].takes is None
    quick = "begin with the settings of configs/quick-test.yaml: a test that takes seconds"
    parser.add_argument(
        "--quick-test", dest="quick-test", action="store_true", help=quick if takes_all else argparse.SUPPRESS
    )
    if own or switches:
        group = parser.add_argument_group(f"flags of {named}")
        for flag, text in {**own, **switches}.items():
            value: dict[str, Any] = {"metavar": "VALUE"} if flag in own else {"action": "store_const", "const": "on"}
            text = text.replace("%", "%%")
            group.add_argument(f"--{flag}", dest=flag, default=argparse.SUPPRESS, help=text, **value)
    for settings in GROUPS:
        group = parser.add_argument_group(str(settings.__doc__).rstrip("."))
        for name, field in settings.model_fields.items():
            key = name.replace("_", "-")
            if key in own:  # the command's own flag replaces the setting of that name
                continue
            one_of = f"\nOne of {allowed}." if (allowed := choices(field)) else ""
            text = f"{field.description}{one_of} [{field.default}]".replace("%", "%%")
            is_switch = bool in (field.annotation, *get_args(field.annotation))
            switch: dict[str, Any] = {"nargs": "?", "const": True} if is_switch else {}
            shown = text if key in taken else argparse.SUPPRESS
            group.add_argument(f"--{key}", dest=key, default=argparse.SUPPRESS, metavar="VALUE", help=shown, **switch)
    return parser


def _description(commands: Mapping[str, Command], named: str, program: str) -> str:
    if named:
        files = f" {commands[named].files}" if commands[named].files else ""
        text = f"{program} {named}{files}: {commands[named].help}."
        if commands[named].takes is not None:
            return text
        return f"{text}\nAll settings of `{program} --help` are flags of this command too."
    lines = [f"{name:<18} {command.help}" for name, command in commands.items()]
    return "\n".join(
        [
            "Federated learning with sparse communication.",
            "",
            f"{program} --distribution dirichlet --beta 0.1      run an experiment",
            f"{program} --quick-test                             a test that takes seconds",
            f"{program} --config configs/quick-test.yaml         with settings from a file; flags override it",
            f"{program} menu                                     asks what to do",
            f"{program} COMMAND --help                           a command's own flags",
            "",
            "commands:",
            textwrap.indent("\n".join(lines), "  "),
        ]
    )


def _version() -> str:
    try:
        return version("fedsparse")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "(not installed)"
