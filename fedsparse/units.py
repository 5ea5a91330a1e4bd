"""Numbers as a user types them: 1MB, 75%."""

import math
import re

from fedsparse.errors import ConfigError

UNITS = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


def bytes_of(text: str, flag: str) -> float:
    """``1MB``, ``1.5 GB`` or ``20000`` as a number of bytes; decimal units, as networks count.

    Raises:
        ConfigError: it is none, and what ``flag`` should be.
    """
    found = re.fullmatch(r"\s*(\S+?)\s*([a-zA-Z]*)\s*", text)
    number, unit = found.groups() if found else ("", "")
    value = _positive(number)
    if not value or unit.lower() not in UNITS:
        raise ConfigError(f"{flag} {text}: should be a number of bytes, such as 500kB or 1.5MB")
    return value * UNITS[unit.lower()]


def level_of(text: str, flag: str) -> float:
    """``75%`` or ``0.75`` or ``12.5`` as a number.

    Raises:
        ConfigError: it is none, and what ``flag`` should be.
    """
    value = _positive(text.strip().removesuffix("%"))
    if not value:
        raise ConfigError(f"{flag} {text}: should be a value of the metric, such as 75% or 12.5")
    return value / 100 if text.strip().endswith("%") else value


def _positive(text: str) -> float:
    """The number; 0 where the text is no finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 < value < math.inf else 0.0
