"""How a line looks, and what it is called: the same in every picture.

Okabe and Ito's colours (Color Universal Design, 2008) differ for every kind of colour vision. There are fewer of them
than methods, so that markers, and dashes, tell the lines apart as well.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fedsparse.catalogue import AGGREGATORS, COMPRESSORS, STRATEGIES, TOPOLOGIES
from fedsparse.config.presets import PRESETS
from fedsparse.report.results import ENDED

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE = "#000000"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")

METHODS: Mapping[str, tuple[str, ...]] = {
    "compressor": (
        *("hggtopk", "eden", "randomk", "powersgd", "stc", "signsgd"),  # so that the most compared have a colour each
        *("topk", "qsgd", "dgc", "lowrank", "sparseloco", "terngrad"),
        *sorted({*COMPRESSORS, *PRESETS}),
    ),
    "topology": tuple(TOPOLOGIES),
    "strategy": tuple(STRATEGIES),
    "aggregator": tuple(AGGREGATORS),
    "lowrank-layers": ("full", "selective", "progressive", "dynamic"),
    "weight-bits": ("8", "4", "2", "1"),
    "distill": ("global", "not-true", "ensemble"),
}
"""The settings whose values are methods. The places of setting and method decide the method's colour and marker."""

SPEAKING = ("compressor", "topology", "strategy", "aggregator", ENDED)
"""Settings whose values say in a name what they are of."""

BASELINES = ("none", "dense", "auto")
"""Methods that are black."""


class Style(NamedTuple):
    """Of a line."""

    colour: str
    marker: str
    dash: str


def styles(all_settings: Sequence[Mapping[str, Any]]) -> list[Style]:
    """The style of each line of a picture.

    The colour is that of the method: the value of the setting of ``METHODS`` in which the lines differ the most, of
    those that the line has. Lines of one method have further dashes and markers. Where the lines differ in no method,
    each has the next colour.

    Args:
        all_settings: of each line, the settings that distinguish it.
    """
    values = {key: len({str(s.get(key)) for s in all_settings}) for key in METHODS}
    keys = sorted((key for key in METHODS if values[key] > 1), key=lambda key: -values[key])
    if not keys:
        return [_numbered(number) for number in range(len(all_settings))]
    seen: dict[tuple[str, str], int] = {}
    found = []
    for settings in all_settings:
        key = next((key for key in keys if settings.get(key, "") not in ("", "off")), keys[0])
        name = str(settings.get(key, ""))
        variant = seen[key, name] = seen.get((key, name), -1) + 1
        found.append(_of_method(key, name, variant))
    return found


def _of_method(key: str, name: str, variant: int) -> Style:
    if name in BASELINES:
        return Style(BASELINE, MARKERS[variant % len(MARKERS)], DASHES[variant % len(DASHES)])
    order = dict.fromkeys(METHODS[key])
    number = list(order).index(name) if name in order else zlib.crc32(name.encode())  # of one's own method
    return _numbered(number + list(METHODS).index(key), variant)


def _numbered(number: int, variant: int = 0) -> Style:
    """Six colours and seven markers make 42 pairs before one comes again; dashes differ where a colour comes again."""
    return Style(
        COLOURS[number % len(COLOURS)],
        MARKERS[(number + variant) % len(MARKERS)],
        DASHES[(number // len(COLOURS) + variant) % len(DASHES)],
    )


def named(settings: Mapping[str, Any], without: Iterable[str] = ("seed",)) -> str:
    """Settings as the name of a line, such as ``topk, density 0.01``: another name for other settings."""
    words = (_word(key, value) for key, value in settings.items() if key not in without)
    return ", ".join(word for word in words if word)


def _word(key: str, value: Any) -> str:
    """A setting as a word of a name; ``auto`` needs none, and neither does a method that is off."""
    if value is True:
        return key
    if value is False or (value == "" and key != ENDED):
        return f"no {key}"
    if value == "auto" or (value == "off" and key in METHODS):
        return ""
    return str(value) if key in SPEAKING else f"{key} {value}"


def is_number(value: Any) -> bool:
    """Whether it is a number, or the text of one, as settings have it that may also be a distribution."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
