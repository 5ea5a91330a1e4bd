"""Plots of the rows of a sweep, read from matplotlib's objects."""

import io

from matplotlib.figure import Figure

from fedsparse.report.row_plot import plot_rows
from fedsparse.report.table import summarise
from tests.fedsparse.report.made_up import result

RUNS = [
    ({"compressor": c, "density": d, "beta": b, "seed": s}, result([0.1, 0.5 + d / 2 + s / 100], seed=s))
    for c in ("topk", "randomk")
    for d in (0.5, 0.1)
    for b in (0.1, 1.0)
    for s in (0, 1)
]
BASELINE = [
    ({"compressor": "none", "beta": b, "seed": s}, result([0.1, 0.7 + s / 100], seed=s))
    for b in (0.1, 1.0)
    for s in (0, 1)
]


def drawn(figure: Figure) -> bytes:
    figure.savefig(out := io.BytesIO(), format="png")
    return out.getvalue()


def test_lines_are_sorted_along_the_setting_on_the_x_axis() -> None:
    figure = plot_rows(summarise(RUNS), x="density", lines=["compressor"], panels=["beta"])
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert [list(c[0].get_xdata()) for c in axes.containers] == [[0.1, 0.5], [0.1, 0.5]]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["topk", "randomk"]
    assert drawn(figure)


def test_numbers_that_are_written_as_text_make_an_axis_of_numbers() -> None:
    runs = [({"latency-ms": text}, result([0.1, 0.5])) for text in ("50", "0", "1e2")]
    (line,) = plot_rows(summarise(runs), x="latency-ms").axes[0].containers
    assert list(line[0].get_xdata()) == [0, 50, 100]


def test_over_the_uplink_a_line_joins_points_that_differ_in_a_trade_off_alone() -> None:
    figure = plot_rows(summarise(RUNS))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        f"{c}, beta {b}" for c in ("topk", "randomk") for b in (0.1, 1.0)
    ]
    assert [a.get_title() for a in plot_rows(summarise(RUNS), panels=["beta"]).axes] == ["beta 0.1", "beta 1.0"]


def test_an_uplink_axis_has_numbers_however_little_it_spans() -> None:
    for most, scale in ((12, "linear"), (120, "log")):
        runs = [({"compressor": c}, result([0.5] * (1 + n))) for c, n in (("topk", 10), ("none", most))]
        figure = plot_rows(summarise(runs))
        drawn(figure)
        assert figure.axes[0].get_xscale() == scale
        low, high = figure.axes[0].get_xlim()
        labels = [t for t in figure.axes[0].get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= high]
        assert len(labels) > 1


def test_rows_of_equal_bytes_stand_on_one_tick() -> None:
    runs = [({"compressor": c}, result([0.1, 0.5])) for c in ("topk", "stc")]
    for count, (_, run) in zip((99876, 99884), runs, strict=True):
        run["summary"]["uplink-bytes"] = count
    axes = plot_rows(summarise(runs)).axes[0]
    a, b = (float(line[0].get_xdata()[0]) for line in axes.containers)
    assert 0 < b - a < 0.01 * (axes.get_xticks()[1] - axes.get_xticks()[0])


def test_runs_without_the_setting_on_the_x_axis_are_level_lines() -> None:
    figure = plot_rows(summarise(RUNS + BASELINE), x="density", lines=["compressor"], panels=["beta"])
    level = [line for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1 and line.get_label() != "topk"]
    assert [round(float(line.get_ydata()[0]), 3) for line in level if list(line.get_xdata()) == [0, 1]] == [0.705]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["topk", "randomk", "none"]


def test_settings_that_are_words_make_an_axis_of_words() -> None:
    assert drawn(plot_rows(summarise(RUNS), x="compressor", lines=["density", "beta"]))


def test_a_sweep_over_seeds_alone_is_one_point() -> None:
    figure = plot_rows(summarise([({"seed": s}, result([0.1, 0.5], seed=s)) for s in (0, 1)]))
    assert len(figure.axes[0].containers) == 1
    assert not figure.legends


def test_accuracy_never_leaves_0_to_100_percent_however_wide_the_interval() -> None:
    figure = plot_rows(summarise([({"seed": s}, result([0.1, 0.9 * s], seed=s)) for s in (0, 1)]))
    assert figure.axes[0].get_ylim() == (0, 1)
