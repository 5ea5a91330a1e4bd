"""What a table says of one run."""

import math

import numpy as np
import pytest

from fedsparse.errors import ConfigError
from fedsparse.report.measures import Goals, last_evaluations, measure
from fedsparse.report.options import Options
from tests.fedsparse.report.made_up import result


@pytest.mark.parametrize(("evaluated", "last"), [(2, 1), (7, 1), (8, 2), (40, 10), (1000, 10)])
def test_accuracy_is_the_mean_of_a_runs_last_quarter_and_of_ten_evaluations_at_most(evaluated: int, last: int) -> None:
    assert last_evaluations(evaluated) == last
    accuracies = [n / evaluated for n in range(evaluated)]
    assert measure(result(accuracies))["accuracy"] == pytest.approx(np.mean(accuracies[-last:]))


def test_an_accuracy_before_training_is_no_result() -> None:
    assert math.isnan(measure(result([0.1]))["accuracy"])
    assert measure(result([0.1, 0.2]))["accuracy"] == 0.2


def test_ratios_are_to_the_same_messages_with_the_whole_model() -> None:
    run = result([0.1, 0.5])  # 1,000 bytes up, and 2,000 down
    run["summary"] |= {"dense-uplink-bytes": 50_000, "dense-downlink-bytes": 10_000}
    measured = measure(run)
    assert (measured["uplink-ratio"], measured["both-ratio"]) == (50, 20)
    assert math.isnan(measure(result([0.1, 0.5]))["uplink-ratio"])


def test_the_bytes_to_a_target_are_those_of_the_first_evaluation_that_reaches_it() -> None:
    run = result([0.1, 0.4, 0.6, 0.5, 0.7])
    measured = measure(run, Goals(target=0.6))
    assert (measured["target-uplink-bytes"], measured["target-both-bytes"]) == (2000, 6000)
    assert math.isnan(measure(run, Goals(target=0.71))["target-uplink-bytes"])


def test_a_perplexity_reaches_a_target_from_above() -> None:
    run = result([30, 12, 9, 8])
    for row in run["rounds"]:
        row["eval/perplexity"] = row.pop("eval/accuracy")
    assert measure(run, Goals(target=10))["target-uplink-bytes"] == 2000


def test_a_budget_is_judged_by_the_evaluations_within_it() -> None:
    run = result([0.1, 0.4, 0.6, 0.5, 0.7])
    assert measure(run, Goals(budget=2999))["at-budget"] == 0.6
    assert measure(run, Goals(budget=3000))["at-budget"] == 0.5
    assert measure(run, Goals(budget=1e9))["at-budget"] == 0.7
    assert math.isnan(measure(run, Goals(budget=999))["at-budget"])


@pytest.mark.parametrize(
    ("text", "count"), [("1MB", 1e6), ("1.5 gb", 1.5e9), ("20000", 2e4), ("8kB", 8e3), ("1e3 B", 1e3)]
)
def test_a_budget_has_decimal_units(text: str, count: float) -> None:
    assert Options.of(budget=text).goals.budget == count


@pytest.mark.parametrize(("text", "value"), [("75%", 0.75), ("0.75", 0.75), ("12.5", 12.5)])
def test_a_target_is_a_share_or_a_value(text: str, value: float) -> None:
    assert Options.of(target=text).goals.target == value


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"budget": "much"}, "--budget much: should be a number of bytes"),
        ({"budget": "1 MiB"}, "--budget 1 MiB: should be a number of bytes"),
        ({"budget": "-1"}, "--budget -1: should be a number of bytes"),
        ({"target": "nan"}, "--target nan: should be a value of the metric"),
        ({"target": "%"}, "--target %: should be a value of the metric"),
        ({"x": "uplink,bytes"}, "--x bytes: should be one of uplink, both, rounds"),
        ({"format": "jpg"}, "--format jpg: should be one of png, pdf, svg"),
        ({"scale": "square"}, "--scale square: should be one of auto, linear, log"),
        ({"size": "big"}, "--size big: should be one of screen, one-column, two-columns"),
        ({"baseline": "none"}, "--baseline none: should be settings such as compressor=none"),
    ],
)
def test_a_mistake_in_a_flag_of_the_report_is_one_line(flags: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        Options.of(**flags)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
