"""The line that says where the seconds of training and communication went, and how exact the selection was."""

import re
import textwrap
from collections.abc import Mapping

COSTS = ("compress", "transfer")
"""The parts that training alone would not have."""


def time_lines(parts: Mapping[str, float], kept: float | None, threshold_error: float | None, width: int) -> list[str]:
    """The line, for instance ``time 45.2 s (forward 15.3, ...)  overhead: compress 4.6 %  kept 0.05``, in pieces.

    Args:
        parts: seconds by part, in the order of ``tags.PARTS``, summed over clients; the first number is their sum.
        kept: share of the parameters that travelled; None where nothing was compressed.
        threshold_error: ``|selected - k| / k``; None where the selection does not go by a density.
        width: columns of the terminal.

    Returns:
        Nothing without parts.
    """
    total = sum(parts.values())
    if not total:
        return []
    words = [f"time {seconds(total)} s ({', '.join(f'{part} {seconds(s)}' for part, s in parts.items())})"]
    if costs := [f"{part} {100 * parts[part] / total:.1f} %" for part in COSTS if part in parts]:
        words.append(f"overhead: {', '.join(costs)}")
    if kept is not None:
        words.append(f"kept {kept:.3g}")
    if threshold_error is not None:
        words.append(f"threshold error {threshold_error:.2g}")
    # A line ends between two numbers, never between a number and its name.
    text = re.sub(r"(?<=[^,\s]) (?=\S)", "\0", "  ".join(words))
    return [line.replace("\0", " ") for line in textwrap.wrap(text, width)]


def seconds(number: float) -> str:
    """Two digits behind the point below 10, one below 100, none above."""
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"
