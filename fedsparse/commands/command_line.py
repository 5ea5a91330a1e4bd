"""The command line: a command, its files, every setting as a flag. Knows no command by name."""

import argparse
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fedsparse.config import KEYS, Config, unknown_key
from fedsparse.config.settings import OneOf
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import ConfigError

Settings = dict[str, Any]


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


class Command(NamedTuple):
    """What ``main.py NAME`` does with the settings given, its further arguments and its own flags."""

    act: Callable[..., None]
    files: str = ""
    """Its further arguments: none, one ``FILE``, or, with dots behind the name, one or more."""
    own: Mapping[str, str] = {}
    """Flags that are no settings, and their help; each goes to ``act`` as a string."""


def parse(
    arguments: list[str], commands: Mapping[str, Command], description: str
) -> tuple[str, Settings, list[str], dict[str, str]]:
    """The command, the settings that ``--config`` and flags give, the command's further arguments, and its own flags.

    Every setting goes to Config as the string it is: one place converts and checks, for flags and YAML alike.

    Raises:
        ConfigError: one line that says what is wrong.
    """
    parser = Parser(
        "main.py",
        usage="main.py [COMMAND] [FILE...] [--SETTING VALUE...]",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("command", nargs="?", default="run", help=f"one of {', '.join(commands)}; run when left out")
    parser.add_argument("files", nargs="*", help="what sweep and report read")
    parser.add_argument("--config", metavar="FILE", action="append", default=[], help="YAML file of the settings below")
    owners = {flag: name for name, command in commands.items() for flag in command.own if flag not in KEYS}
    for flag, name in owners.items():
        text = f"{name}: {commands[name].own[flag]}"
        parser.add_argument(f"--{flag}", dest=flag, default=argparse.SUPPRESS, metavar="VALUE", help=text)
    for key in KEYS:
        field = Config.model_fields[key.replace("-", "_")]
        text = f"{field.description}{_choices(field)} [{field.default}]".replace("%", "%%")
        is_switch = bool in (field.annotation, *get_args(field.annotation))
        switch: dict[str, Any] = {"nargs": "?", "const": True} if is_switch else {}
        parser.add_argument(f"--{key}", dest=key, default=argparse.SUPPRESS, metavar="VALUE", help=text, **switch)
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag[2:] not in (*KEYS, *owners, "config", "help"):
            raise ConfigError(unknown_key(flag[2:], "--"))
    flags = vars(parser.parse_intermixed_args(arguments))
    command, files = flags.pop("command"), flags.pop("files")
    if command not in commands:
        raise ConfigError(f"unknown command {command!r}; the commands are {', '.join(commands)}")
    # A command's own flag may have the name of a setting, which it then is not.
    own = {flag: flags.pop(flag) for flag in {**owners, **commands[command].own} if flag in flags}
    for flag in own.keys() - commands[command].own.keys():
        raise ConfigError(f"--{flag} belongs to the command {owners[flag]}, not to {command}")
    wanted = commands[command].files
    if wanted and not files:
        raise ConfigError(f"{command} needs a {wanted}: python main.py {command} {wanted}")
    if not wanted.endswith("...") and len(files) > bool(wanted):
        raise ConfigError(f"unrecognized arguments: {' '.join(files[bool(wanted) :])}")
    settings: Settings = {}
    for file in flags.pop("config"):
        settings |= read_yaml(file)
    return command, settings | flags, files, own


def _choices(field: FieldInfo) -> str:
    """What a setting may be, as a line of help."""
    options = field.annotation.__args__ if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    names = [str(name) for option in options if get_origin(option) is Literal for name in get_args(option)]
    described = [mark.described() for mark in field.metadata if isinstance(mark, OneOf)]
    return f"\nOne of {', '.join(described or names)}." if described or len(names) > 1 else ""
