"""The columns of a table, with the text of their cells."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fedsparse.errors import ConfigError
from fedsparse.report.estimate import Estimate
from fedsparse.report.measures import NO_GOALS, Goals
from fedsparse.report.table import Row, headlines
from fedsparse.telemetry.progress import human_bytes
from fedsparse.telemetry.tags import PARTS, Headline


class Column(NamedTuple):
    """A column of a measure."""

    key: str
    """The measure, and the column's name in table.csv."""
    title: str
    form: Callable[[Estimate, Headline], str]
    """The text of an estimate in a row with this headline."""
    missed: str = ""
    """What stands where no run has the measure; where some have it, their number stands beside."""

    def text(self, row: Row) -> str:
        """The text of a row's cell."""
        estimate, found = row[self.key], row.count(self.key)
        if math.isnan(estimate.mean):
            return self.missed
        of = f" ({found} of {row.seeds})" if self.missed and found < row.seeds else ""
        return self.form(estimate, row.headline) + of


def columns(rows: Sequence[Row], goals: Goals = NO_GOALS, baseline: Mapping[str, Any] | None = None) -> list[Column]:
    """The columns that any of the rows has, from the headline to the seconds.

    Raises:
        ConfigError: a target that no share can reach.
    """
    name = " and ".join(headline.name for headline in headlines(rows))
    found = [Column(headline.name, headline.name, metric) for headline in headlines(rows)]
    found.append(Column("above", f"above {in_words(baseline or {})}", _difference))
    found.append(Column("at-budget", f"{name} at {human_bytes(goals.budget or 0)} of uplink", metric, "no round"))
    found += [Column("uplink-bytes", "uplink", _bytes), Column("both-bytes", "both ways", _bytes)]
    found += [
        Column("uplink-ratio", "uplink below dense", _times),
        Column("both-ratio", "both ways below dense", _times),
    ]
    target = goals.target or 0.0
    share = rows[0].headline.form.endswith("%")
    if share and target > 1:
        raise ConfigError(f"--target {target:g}: no {name} is above 100%; do you mean {target:g}%?")
    goal = f"{100 * target:g}%" if share else f"{target:g}"
    found.append(Column("target-uplink-bytes", f"uplink to {goal}", _bytes, "never"))
    found.append(Column("target-both-bytes", f"both ways to {goal}", _bytes, "never"))
    found += [Column("simulated-seconds", "simulated seconds", _seconds), Column("seconds", "seconds", _seconds)]
    asked = {"at-budget": goals.budget, "target-uplink-bytes": goals.target, "target-both-bytes": goals.target}
    return [c for c in found if asked.get(c.key) or any(not math.isnan(row[c.key].mean) for row in rows)]


def stages(rows: Sequence[Row]) -> list[Column]:
    """The columns of the seconds by part of a round, of those that any of the rows has."""
    found = [Column(f"seconds-{part}", part, _seconds) for part in PARTS]
    return [column for column in found if any(row.count(column.key) for row in rows)]


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings as they are read aloud: ``compressor none``."""
    return " ".join(f"{key} {value}" for key, value in settings.items())


def metric(value: Estimate, headline: Headline) -> str:
    """The headline with its interval, which is in points where the headline is in percent."""
    return headline.shown(value.mean) + _plus_minus(*_in_points(value.half_width, headline))


def _difference(value: Estimate, headline: Headline) -> str:
    points, form = _in_points(value.mean, headline)
    return f"{points:+{form}}" + _plus_minus(*_in_points(value.half_width, headline))


def _in_points(value: float, headline: Headline) -> tuple[float, str]:
    return (100 * value, ".1f") if headline.form.endswith("%") else (value, headline.form)


def _bytes(count: Estimate, _: Headline) -> str:
    return human_bytes(count.mean)


def _times(ratio: Estimate, _: Headline) -> str:
    return f"{ratio.mean:.1f} x"


def _seconds(seconds: Estimate, _: Headline) -> str:
    return f"{seconds.mean:.1f}" + _plus_minus(seconds.half_width, ".1f")


def _plus_minus(half_width: float, form: str) -> str:
    return "" if math.isnan(half_width) else f" ± {half_width:{form}}"
