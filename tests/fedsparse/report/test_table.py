"""Means and intervals over seeds, as Markdown and as CSV."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from fedsparse.report.table import Estimate, last_evaluations, measure, summarise, to_csv, to_markdown
from tests.fedsparse.report.made_up import result


def test_an_estimate_is_students_interval() -> None:
    values = [0.71, 0.75, 0.72, 0.69]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    estimate = Estimate.of(values)
    assert estimate.mean - estimate.half_width == pytest.approx(low)
    assert estimate.mean + estimate.half_width == pytest.approx(high)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    estimate = Estimate.of([0.5])
    assert estimate.mean == 0.5
    assert math.isnan(estimate.half_width)


@pytest.mark.parametrize(("evaluated", "last"), [(1, 1), (7, 1), (8, 2), (40, 10), (1000, 10)])
def test_accuracy_is_the_mean_of_a_runs_last_quarter_and_of_ten_evaluations_at_most(evaluated: int, last: int) -> None:
    assert last_evaluations(evaluated) == last
    accuracies = [n / evaluated for n in range(evaluated)]
    assert measure(result(accuracies))["accuracy"] == pytest.approx(np.mean(accuracies[-last:]))


def test_runs_that_differ_in_their_seed_alone_share_a_row() -> None:
    runs = [
        ({"lr": lr, "seed": seed}, result([0.1, base + 0.01 * seed]))
        for lr, base in ((1, 0.5), (2, 0.6))
        for seed in (0, 2)
    ]
    rows = summarise(runs)
    assert [(row.settings, row.seeds) for row in rows] == [({"lr": 1}, 2), ({"lr": 2}, 2)]
    assert [row.measures["accuracy"].mean for row in rows] == pytest.approx([0.51, 0.61])
    assert rows[0].measures["uplink-bytes"].mean == 1000


def test_markdown_says_how_many_evaluations_an_accuracy_is_the_mean_of() -> None:
    rows = summarise([({"lr": 1, "seed": s}, result([0.5 + 0.01 * s] * 8)) for s in (0, 1)])
    text = to_markdown(rows, [8, 8])
    assert text.splitlines()[0] == "| lr | seeds | accuracy | uplink | downlink | seconds |"
    assert "| 1 | 2 | 50.5% ± 6.4 | 7 kB | 14 kB | 3.0 ± 0.0 |" in text
    assert "last 2 evaluations" in text


def test_simulated_seconds_have_a_column_if_a_run_measured_them() -> None:
    timed = result([0.5])
    timed["summary"]["simulated-seconds"] = 12.5
    rows = summarise([({"lr": 1}, result([0.5])), ({"lr": 2}, timed)])
    assert "| simulated seconds |" in to_markdown(rows, [1, 1])
    assert [row["simulated-seconds"] for row in csv.DictReader(io.StringIO(to_csv(rows)))] == ["", "12.5"]
    assert "simulated" not in to_markdown(rows[:1], [1]) + to_csv(rows[:1])


def test_csv_has_every_digit_and_leaves_unknown_intervals_empty() -> None:
    rows = summarise([({"a": 1, "seed": 0}, result([1 / 3])), ({"b": "x,y", "seed": 0}, result([0.5]))])
    first, second = csv.DictReader(io.StringIO(to_csv(rows)))
    assert float(first["accuracy"]) == 1 / 3
    assert first["accuracy ±"] == ""
    assert (first["b"], second["b"], second["a"]) == ("", "x,y", "")
