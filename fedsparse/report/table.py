"""The rows of a table: one for all runs that differ only in their seed, and its difference to a baseline."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedsparse.config import GROUPS
from fedsparse.errors import ConfigError
from fedsparse.report.estimate import UNKNOWN, Estimate, paired
from fedsparse.report.measures import NO_GOALS, Goals, measure
from fedsparse.report.results import Result, headline_of
from fedsparse.telemetry.tags import Headline

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    Attributes:
        settings: those that distinguish the row from the others.
        by_seed: of each measure, the values by seed.
        headline: the metric of the runs' task, which is one of the measures.
        above: the difference of the headline to the baseline's, seed by seed.
    """

    settings: dict[str, Any]
    by_seed: dict[str, dict[int, float]]
    headline: Headline
    above: Estimate = UNKNOWN

    def __getitem__(self, measure: str) -> Estimate:
        """The estimate of a measure over the seeds that have it; ``above`` is a measure too."""
        if measure == "above":
            return self.above
        values = [value for value in self.by_seed.get(measure, {}).values() if not math.isnan(value)]
        return Estimate.of(values) if values else UNKNOWN

    @property
    def seeds(self) -> int:
        """How many runs the row has."""
        return len(self.by_seed[self.headline.name])

    @property
    def result(self) -> Estimate:
        """The estimate of the headline."""
        return self[self.headline.name]

    def count(self, measure: str) -> int:
        """How many seeds have a measure."""
        return sum(not math.isnan(value) for value in self.by_seed.get(measure, {}).values())


def summarise(
    runs: Iterable[tuple[Settings, Result]], goals: Goals = NO_GOALS, baseline: Settings | None = None
) -> list[Row]:
    """One row for all runs that differ only in ``seed``, in the order of the rows' first runs.

    Args:
        runs: the settings that distinguish each run, and its result.
        goals: what is asked of each run.
        baseline: settings of the rows to which the others are compared; see ``with_baseline``.

    Raises:
        ConfigError: no row has the baseline's settings.
    """
    rows: dict[Any, Row] = {}
    for settings, result in runs:
        chosen = {key: value for key, value in settings.items() if key != "seed"}
        headline = headline_of(result)
        row = rows.setdefault((tuple(chosen.items()), headline), Row(chosen, {}, headline))
        for name, value in measure(result, goals).items():
            row.by_seed.setdefault(name, {})[result["config"].get("seed", 0)] = value
    return with_baseline(list(rows.values()), baseline) if baseline else list(rows.values())


def with_baseline(rows: Sequence[Row], baseline: Settings) -> list[Row]:
    """The rows, each with its difference to its baseline, if there is just one.

    A row's baseline has the given settings, and agrees with the row in all others, but in those of the same groups: the
    baseline ``compressor=none`` has neither the density nor the values of the row, but has its partition.

    Raises:
        ConfigError: no row has these settings.
    """
    found = [row for row in rows if all(str(row.settings.get(key)) == str(baseline[key]) for key in baseline)]
    if not found:
        key = next((key for key in baseline if any(key in row.settings for row in rows)), min(baseline))
        tried = ", ".join(dict.fromkeys(str(row.settings[key]) for row in rows if key in row.settings))
        words = " ".join(f"{k}={v}" for k, v in baseline.items())
        have = f"they differ in {key} = {tried}" if tried else f"they do not differ in {key}"
        raise ConfigError(f"--baseline {words}: no run has these settings; {have}")
    groups = [[name.replace("_", "-") for name in group.model_fields] for group in GROUPS]
    may_differ = {key for keys in groups if baseline.keys() & set(keys) for key in keys}

    def fits(row: Row, other: Row) -> bool:
        same = (row.settings.keys() & other.settings.keys()) - may_differ
        return row.headline == other.headline and all(row.settings[key] == other.settings[key] for key in same)

    compared = []
    for row in rows:
        fitting = [other for other in found if fits(row, other)]
        name = row.headline.name
        is_one = len(fitting) == 1 and fitting[0] is not row
        above = paired(row.by_seed[name], fitting[0].by_seed[name]) if is_one else UNKNOWN
        compared.append(replace(row, above=above))
    return compared


def headlines(rows: Sequence[Row]) -> list[Headline]:
    """The headlines of all rows, in the order in which they first appear: one, unless tasks are mixed."""
    return list(dict.fromkeys(row.headline for row in rows))


def settings_of(rows: Sequence[Row]) -> list[str]:
    """The settings of all rows, in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row.settings))
