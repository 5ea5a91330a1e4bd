"""Means, intervals and differences over seeds, as Markdown, CSV and LaTeX."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from fedsparse.errors import ConfigError
from fedsparse.report.columns import columns
from fedsparse.report.estimate import Estimate, mean_and_half_width, paired
from fedsparse.report.formats import explanation, to_csv, to_latex, to_markdown
from fedsparse.report.measures import Goals
from fedsparse.report.table import Row, summarise
from tests.fedsparse.report.made_up import result

NONE = {"compressor": "none"}


def test_an_estimate_is_students_interval() -> None:
    values = [0.71, 0.75, 0.72, 0.69]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    estimate = Estimate.of(values)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_intervals_of_many_points_are_those_of_each_point() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    for point, mean, half_width in zip(values.T, *mean_and_half_width(values), strict=True):
        low, high = stats.t.interval(0.95, 4, point.mean(), stats.sem(point))
        assert (mean - half_width, mean + half_width) == (pytest.approx(low), pytest.approx(high))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    estimate = Estimate.of([0.5])
    assert estimate.mean == 0.5
    assert math.isnan(estimate.half_width)


def test_a_difference_has_the_interval_of_the_paired_t_test_over_the_seeds_of_both() -> None:
    ours, theirs = {0: 0.8, 1: 0.5, 2: 0.61, 3: 0.9}, {1: 0.52, 2: 0.6, 3: 0.88, 4: 0.1}
    test = stats.ttest_rel([ours[s] for s in (1, 2, 3)], [theirs[s] for s in (1, 2, 3)])
    interval = test.confidence_interval(0.95)
    difference = paired(ours, theirs)
    assert (difference.low, difference.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_runs_that_differ_in_their_seed_alone_share_a_row() -> None:
    runs = [
        ({"lr": lr, "seed": seed}, result([0.1, base + 0.01 * seed], seed=seed))
        for lr, base in ((1, 0.5), (2, 0.6))
        for seed in (0, 2)
    ]
    rows = summarise(runs)
    assert [(row.settings, row.seeds) for row in rows] == [({"lr": 1}, 2), ({"lr": 2}, 2)]
    assert [row["accuracy"].mean for row in rows] == pytest.approx([0.51, 0.61])
    assert rows[0]["uplink-bytes"].mean == 1000


def compared(*without: dict) -> list[Row]:
    """Two partitions; top-k is 1 and 2 points below dense on the first, and 3 on the second."""
    cells = [
        ({"beta": beta, "compressor": name, **more, "seed": seed}, result([0.1, accuracy], seed=seed))
        for beta, name, more, accuracies in (
            (0.1, "none", {"values": "f32"}, (0.5, 0.7)),
            (0.1, "topk", {"values": "f16", "density": 0.1}, (0.49, 0.68)),
            (1.0, "none", {"values": "f32"}, (0.8, 0.8)),
            (1.0, "topk", {"values": "f16", "density": 0.1}, (0.77, 0.77)),
        )
        for seed, accuracy in enumerate(accuracies)
    ]
    return summarise(
        [cell for cell in cells if not any(one.items() <= cell[0].items() for one in without)], baseline=NONE
    )


def test_the_baseline_of_a_row_has_its_partition_and_none_of_its_compression() -> None:
    dense, topk, other_dense, other_topk = compared()
    assert topk.above.mean == pytest.approx(-0.015)
    assert topk.above.half_width == pytest.approx(stats.t.ppf(0.975, 1) * 0.005)
    assert other_topk.above.mean == pytest.approx(-0.03)
    assert math.isnan(dense.above.mean)
    assert math.isnan(other_dense.above.mean)


def test_a_row_whose_baseline_did_not_run_is_compared_with_no_other() -> None:
    *_, topk = compared({"beta": 1.0, "compressor": "none"})
    assert math.isnan(topk.above.mean)


def test_a_baseline_that_no_run_has_is_one_line_that_says_what_there_is() -> None:
    runs = [({"compressor": name}, result([0.1, 0.5])) for name in ("topk", "eden")]
    with pytest.raises(ConfigError, match="no run has these settings; they differ in compressor = topk, eden"):
        summarise(runs, baseline=NONE)


def test_markdown_says_how_many_evaluations_an_accuracy_is_the_mean_of() -> None:
    rows = summarise([({"lr": 1, "seed": s}, result([0.5 + 0.01 * s] * 8, seed=s)) for s in (0, 1)])
    text = to_markdown(rows, columns(rows))
    assert text.splitlines()[0] == "| lr | seeds | accuracy | uplink | both ways | seconds |"
    assert "| 1 | 2 | 50.5% ± 6.4 | 7 kB | 21 kB | 3.0 ± 0.0 |" in text
    assert "last 2 evaluations" in explanation(rows, [8, 8])


def test_simulated_seconds_have_a_column_if_a_run_measured_them() -> None:
    timed = result([0.5])
    timed["summary"]["simulated-seconds"] = 12.5
    rows = summarise([({"lr": 1}, result([0.5])), ({"lr": 2}, timed)])
    assert "| simulated seconds |" in to_markdown(rows, columns(rows))
    assert [row["simulated-seconds"] for row in csv.DictReader(io.StringIO(to_csv(rows, columns(rows))))] == [
        "",
        "12.5",
    ]
    assert "simulated" not in to_markdown(rows[:1], columns(rows[:1]))


def test_goals_and_the_baseline_have_columns() -> None:
    goals = Goals(target=0.6, budget=1500)
    runs = [
        ({"compressor": name, "seed": seed}, result([0.1, *accuracies], seed=seed))
        for name, per_seed in (("none", ([0.6, 0.7], [0.5, 0.7])), ("topk", ([0.1, 0.4], [0.3, 0.65])))
        for seed, accuracies in enumerate(per_seed)
    ]
    rows = summarise(runs, goals, NONE)
    header, _, none, topk = to_markdown(rows, columns(rows, goals, NONE)).splitlines()
    assert header.split(" | ")[2:] == [
        *("accuracy", "above compressor none", "accuracy at 1.5 kB of uplink", "uplink", "both ways"),
        *("uplink to 60%", "both ways to 60%", "seconds |"),
    ]
    assert none.split(" | ")[3:5] == ["", "55.0% ± 63.5"]
    assert none.split(" | ")[7:9] == ["1.5 kB", "4.5 kB"]
    assert topk.split(" | ")[3] == "-17.5 ± 158.8"
    assert topk.split(" | ")[7:9] == ["2 kB (1 of 2)", "6 kB (1 of 2)"]


def test_csv_has_every_digit_and_leaves_unknown_intervals_empty() -> None:
    rows = summarise([({"a": 1, "seed": 0}, result([0.1, 1 / 3])), ({"b": "x,y", "seed": 0}, result([0.1, 0.5]))])
    first, second = csv.DictReader(io.StringIO(to_csv(rows, columns(rows))))
    assert float(first["accuracy"]) == 1 / 3
    assert first["accuracy ±"] == ""
    assert (first["b"], second["b"], second["a"]) == ("", "x,y", "")


def test_latex_escapes_what_is_its_own() -> None:
    rows = summarise([({"model": r"a_b\c#1&2"}, result([0.1, 0.5]))])
    lines = to_latex(rows, columns(rows)).splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrr}"
    assert lines[5].startswith(r"a\_b\textbackslash{}c\#1\&2 & 1 & 50.0\% & ")


def test_a_target_above_every_accuracy_is_refused_with_what_was_meant() -> None:
    rows = summarise([({"seed": 0}, result([0.1, 0.5]))], Goals(target=75))
    with pytest.raises(ConfigError, match=r"^--target 75: no accuracy is above 100%; do you mean 75%\?$"):
        columns(rows, Goals(target=75))


def test_many_settings_have_one_column_for_people_and_one_each_for_programs() -> None:
    few, many = ({"compressor": "topk", **{f"setting-{n}": n for n in range(count)}} for count in (5, 6))
    for settings, header in ((few, ["compressor", *(f"setting-{n}" for n in range(5))]), (many, ["settings"])):
        rows = summarise([(settings, result([0.1, 0.2]))])
        assert to_markdown(rows, columns(rows)).startswith(f"| {' | '.join(header)} | seeds |")
        assert to_csv(rows, columns(rows)).startswith(f"{','.join(settings)},seeds,")
    assert "\n| topk, setting-0 0, setting-1 1," in to_markdown(rows, columns(rows))
