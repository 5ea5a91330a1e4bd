"""The picture of early exits."""

from fedsparse.report.early_exits import figure_of_run
from fedsparse.telemetry.tags import Headline


def test_thresholds_whose_marks_nearly_touch_share_one_label() -> None:
    places = [(0.0, 1e6, 0.7), (0.5, 2e6, 0.8), (0.8, 2.001e6, 0.8), (0.9, 3e6, 0.9)]
    points = [{"threshold": t, "multiply_adds": x, "accuracy": y} for t, x, y in places]
    (axes,) = figure_of_run({"early-exits": points}, Headline("accuracy", ".2%")).axes
    assert {text.get_text() for text in axes.texts} == {"0", "0.5", "0.9"}
