"""What `main.py report` can be told: its flags, and their values once they are checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from fedsparse.errors import ConfigError
from fedsparse.report.measures import NO_GOALS, Goals
from fedsparse.units import bytes_of, level_of

Over = Literal["uplink", "both", "rounds", "simulated", "seconds", "tokens"]
Scale = Literal["auto", "linear", "log"]
Format = Literal["png", "pdf", "svg"]
Size = Literal["screen", "one-column", "two-columns"]

FLAGS = {
    "x": f"the x axis: {', '.join(get_args(Over))}; several, with commas, stand side by side",
    "y": "the y axis: accuracy, perplexity, loss, or any tag of rounds.csv, such as train/loss",
    "scale": "of the y axis: auto, linear or log [auto]",
    "format": "of the pictures: png, pdf, svg, or several with commas [png]",
    "size": "of the pictures: screen, one-column or two-columns of a paper [screen]",
    "baseline": "settings such as compressor=none; the table has each row's difference to theirs, seed by seed",
    "target": "such as 75%; the table has the bytes that reach it",
    "budget": "such as 1MB of uplink; the table has what is reached with it",
}
"""Flags with a value, and their help."""

SWITCHES = {
    "singles": "draw each seed's line too, faintly",
    "summary": "print again what each run said at its end, and write nothing",
    "compare-comm": "draw where the bytes go, and write tables",
    "compare-sparse": "draw the densities of weights and updates, and write tables",
    "full": "draw and print all of it",
    "follow": "draw anew while a run or a sweep goes on",
}
"""Flags without a value, and their help."""


@dataclass(frozen=True)
class Options:
    """The flags of a report; a mistake in a text is a ConfigError."""

    x: tuple[Over, ...] = ()
    """Empty for the uplink, and simulated seconds where they were measured."""
    y: str = ""
    """Empty for the headline."""
    scale: Scale = "auto"
    formats: tuple[Format, ...] = ("png",)
    size: Size = "screen"
    singles: bool = False
    summary: bool = False
    compare_comm: bool = False
    compare_sparse: bool = False
    full: bool = False
    follow: bool = False
    baseline: Mapping[str, str] = field(default_factory=dict)
    goals: Goals = NO_GOALS

    @classmethod
    def of(
        cls,
        x: str = "",
        y: str = "",
        scale: str = "auto",
        format: str = "png",
        size: str = "screen",
        baseline: str = "",
        target: str = "",
        budget: str = "",
        **switches: str,
    ) -> "Options":
        """From what was typed; the names of ``switches`` are those of SWITCHES, with ``_`` for ``-``."""
        goals = Goals(
            level_of(target, "--target") if target else None, bytes_of(budget, "--budget") if budget else None
        )
        return cls(
            x=cast(tuple[Over, ...], _several(x, get_args(Over), "x")),
            y=y,
            scale=cast(Scale, _one(scale, get_args(Scale), "scale")),
            formats=cast(tuple[Format, ...], _several(format, get_args(Format), "format")),
            size=cast(Size, _one(size, get_args(Size), "size")),
            baseline=_settings(baseline),
            goals=goals,
            **{name: is_on == "on" for name, is_on in switches.items()},
        )


def _several(text: str, allowed: tuple[str, ...], flag: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_one(word, allowed, flag) for word in re.split(r"[,\s]+", text.strip()) if word))


def _one(word: str, allowed: tuple[str, ...], flag: str) -> str:
    if word not in allowed:
        raise ConfigError(f"--{flag} {word}: should be one of {', '.join(allowed)}")
    return word


def _settings(text: str) -> dict[str, str]:
    """``compressor=none,values=f32`` as settings."""
    settings = {}
    for part in filter(None, re.split(r"[,\s]+", text.strip())):
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise ConfigError(f"--baseline {text}: should be settings such as compressor=none")
        settings[key.removeprefix("--").replace("_", "-")] = value
    return settings
