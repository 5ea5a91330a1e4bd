"""What went wrong in runs: how they ended, who was refused, and what their logs say of it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsparse.errors import harmless
from fedsparse.report.results import Result, flaw
from fedsparse.telemetry.tags import REFUSALS

LOGS = ("log.txt", "traceback.txt")
MOST_LINES = 12
MOST_BYTES = 1_000_000
"""A log's last bytes that are read."""
TELLING = re.compile(
    r"^(?:WARNING .*(?:\n {9}.*)*|(?:fedsparse|main\.py): .*|Traceback .*(?:\n .*)*\n.*)", re.MULTILINE
)
"""In a log: warnings, which a terminal breaks into lines, the line that ends a command, and a traceback."""


def failures_of(file: Path, result: Result) -> Mapping[str, Any]:
    """How a run ended, its counts of failures and refusals, and lines of its logs; empty where all went well.

    Args:
        file: from which the result was read; a cell's log lies beside it.
    """
    tags = ("comm/failures", *(f"refused/{kind}" for kind in REFUSALS), "amp/skipped_steps")
    sums = {tag: sum(float(row.get(tag, 0)) for row in result["rounds"]) for tag in tags}
    counts = {tag.partition("/")[2].replace("_", " "): int(total) for tag, total in sums.items() if total}
    lines = [line for name in LOGS for line in _told(file.parent / name)]
    if not (counts or lines or flaw(result)):
        return {}
    shown = lines[:MOST_LINES]
    return {"flaw": flaw(result), "counts": counts, "lines": shown, "more": len(lines) - len(shown)}


def _told(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - MOST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [harmless(re.sub(r"\s*\n {9}", " ", found[0])) for found in TELLING.finditer(text)]
