"""The curves of runs: their numbers, and what a picture shows of them."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from fedsparse.catalogue import COMPRESSORS
from fedsparse.config.presets import PRESETS
from fedsparse.errors import ConfigError
from fedsparse.report.compare import Comparison
from fedsparse.report.curves import curves
from fedsparse.report.options import Options
from fedsparse.report.style import BASELINE, named, styles
from fedsparse.report.svg import Axis
from tests.fedsparse.report.made_up import result


def run(accuracies: list[float], bytes_a_round: float = 1000, **more: list[float]) -> dict[str, Any]:
    """Of the given evaluations, one after each round; ``more`` are further numbers of the rounds."""
    made = result(accuracies)
    for n, row in enumerate(made["rounds"]):
        row["comm/uplink_total"] = n * bytes_a_round
        row |= {tag.replace("__", "/"): values[n] for tag, values in more.items()}
    return made


def seeds(*runs: dict[str, Any], **settings: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [({**settings, "seed": seed}, one) for seed, one in enumerate(runs)]


def drawn(figure: Figure) -> Figure:
    figure.savefig(io.BytesIO(), format="png")
    return figure


def test_a_curve_is_the_mean_of_its_seeds_with_students_band_at_each_x() -> None:
    accuracies = ([0.1, 0.5, 0.6], [0.1, 0.4, 0.7], [0.1, 0.45, 0.8])
    (curve,) = curves(seeds(*map(run, accuracies)), "rounds", "eval/accuracy")
    assert curve.x.tolist() == [1, 2]
    for at, mean, half_width in zip((1, 2), curve.mean, curve.half_width, strict=True):
        values = [a[at] for a in accuracies]
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert (mean - half_width, mean + half_width) == (pytest.approx(low), pytest.approx(high))


def test_seeds_with_other_bytes_are_interpolated_where_all_of_them_have_been() -> None:
    first, second = run([0.1, 0.5, 0.7], 1000), run([0.1, 0.4, 0.8], 1500)
    (curve,) = curves(seeds(first, second), "uplink", "eval/accuracy")
    assert curve.x.tolist() == [1500, 2000]
    assert curve.mean == pytest.approx([(0.6 + 0.4) / 2, (0.7 + 0.4 + 0.4 / 3) / 2])


def test_a_single_run_has_no_band() -> None:
    (curve,) = curves(seeds(run([0.1, 0.5])), "rounds", "eval/accuracy")
    assert np.isnan(curve.half_width).all()
    figure = Comparison(seeds(run([0.1, 0.5, 0.6]))).figure()[0]
    assert not figure.axes[0].collections
    assert not figure.legends


@pytest.mark.parametrize(
    ("over", "x"),
    [("uplink", [1000, 2000]), ("both", [3000, 6000]), ("rounds", [1, 2]), ("simulated", [7, 9]), ("seconds", [3, 6])],
)
def test_every_quantity_has_its_x(over: str, x: list[float]) -> None:
    one = run([0.1, 0.5, 0.6], time__simulated_total=[0, 7, 9], time__round=[1, 2, 3])
    (curve,) = curves(seeds(one), over, "eval/accuracy")
    assert curve.x.tolist() == x


def test_tokens_are_counted_by_the_local_steps_of_the_clients() -> None:
    one = run([0.1, 0.5, 0.6], comm__clients=[0, 3, 2])
    one["config"] |= {"local-steps": 4, "batch-size": 8, "seq-length": 32}
    (curve,) = curves(seeds(one), "tokens", "eval/accuracy")
    assert curve.x.tolist() == [3 * 32, 5 * 32]
    for row in one["rounds"]:
        row["eval/perplexity"] = 100 * row["eval/accuracy"]
    (curve,) = curves(seeds(one), "tokens", "eval/accuracy")
    assert curve.x.tolist() == [3 * 32 * 32, 5 * 32 * 32]


def test_what_no_run_has_measured_is_one_line_that_says_what_there_is() -> None:
    runs = seeds(run([0.1, 0.5]))
    with pytest.raises(ConfigError, match="--x simulated: no run has measured it; there are uplink, both, rounds"):
        Comparison(runs, Options.of(x="simulated")).figure()
    with pytest.raises(ConfigError, match=r"--y recall: no run has measured it; there are .*eval/accuracy"):
        Comparison(runs, Options.of(y="recall")).figure()


def test_any_metric_may_be_the_y_axis_linear_or_logarithmic() -> None:
    one = run([0.1, 0.5, 0.6], train__loss=[3.0, 2.0, 0.1])
    for name, label in (("loss", "train/loss"), ("train/loss", "train/loss"), ("accuracy", "accuracy")):
        axes = drawn(Comparison(seeds(one), Options.of(y=name)).figure()[0]).axes[0]
        assert (axes.get_ylabel(), axes.get_yscale()) == (label, "linear")
    assert Comparison(seeds(one), Options.of(y="loss", scale="log")).figure()[0].axes[0].get_yscale() == "log"


SPREADS = pytest.mark.parametrize("spread", [1e-7, 1e-4, 1e-2, 10, 1e5])
LEASTS = pytest.mark.parametrize("least", [1.08e3, 8.24708e6, 2.2e10])


@SPREADS
@LEASTS
def test_no_two_ticks_of_an_axis_of_bytes_have_one_label_and_there_are_two_at_least(
    least: float, spread: float
) -> None:
    one = run([0.1] + [0.5 + n / 100 for n in range(10)])
    for n, row in enumerate(one["rounds"]):
        row["comm/uplink_total"] = 0 if n == 0 else least * (1 + spread * n / 10)
    axes = drawn(Comparison(seeds(one)).figure()[0]).axes[0]
    low, high = axes.get_xlim()
    labels = [t.get_text() for t in axes.get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= high]
    assert len(labels) > 1
    assert len(set(labels)) == len(labels)


def test_the_seeds_of_a_setting_are_one_line_and_faint_ones_on_request() -> None:
    runs = [cell for c in ("topk", "none") for cell in seeds(run([0.1, 0.5]), run([0.1, 0.6]), compressor=c)]
    figure = Comparison(runs).figure()[0]
    assert len(figure.axes[0].lines) == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["topk", "none"]
    axes = Comparison(runs, Options.of(singles="on")).figure()[0].axes[0]
    assert [line.get_alpha() for line in axes.lines].count(0.35) == 4


@pytest.mark.parametrize("size", ["screen", "one-column", "two-columns"])
@pytest.mark.parametrize("lines", [2, 30])
def test_no_legend_lies_over_axes_and_none_leaves_the_picture(size: str, lines: int) -> None:
    runs = [cell for n in range(lines) for cell in seeds(run([0.1, 0.5, 0.6]), lr=n / 10, compressor="topk")]
    figure = drawn(Comparison(runs, Options.of(size=size, x="uplink,rounds")).figure()[0])
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1


def test_a_wide_band_leaves_the_means_their_room() -> None:
    axes = Comparison(seeds(run([0.1, 0.5, 0.52]), run([0.1, 0.5, 0.6]))).figure()[0].axes[0]
    low, high = axes.get_ylim()
    assert high - low < 0.3


@SPREADS
@LEASTS
def test_nor_have_two_ticks_of_the_pages_axes(least: float, spread: float) -> None:
    axis = Axis.of("uplink", "bytes", np.array([least, least * (1 + spread)]))
    labels = [axis.text(tick) for tick in axis.ticks()]
    assert len(labels) > 1
    assert len(set(labels)) == len(labels)


def test_the_ticks_of_a_single_round_are_whole_numbers() -> None:
    assert {round(tick) == tick for tick in Axis.of("rounds", "count", np.array([3.0])).ticks()} == {True}


def test_every_method_has_one_look_in_all_pictures_and_none_shares_it() -> None:
    names = sorted({*COMPRESSORS, *PRESETS})
    alone = {name: styles([{"compressor": name}, {"compressor": "another"}])[0] for name in names}
    together = dict(zip(names, styles([{"compressor": name} for name in names]), strict=True))
    assert alone == together
    assert len({(look.colour, look.marker) for look in together.values()}) == len(names)
    assert len({(look.colour, look.dash) for look in together.values()}) == len(names)  # charts of the page: no markers
    assert together["none"].colour == "#000000"


def test_other_settings_have_another_name() -> None:
    values = ("auto", "none", "topk", True, False, 0.1)
    all_settings = [
        {"values": a, "downlink-compressor": b, "compressor": c} for a in values for b in values for c in values[1:3]
    ]
    names = [named(settings) for settings in all_settings]
    assert len(set(names)) == len(names)
    assert named({"compressor": "topk", "density": 0.01, "values": "auto", "seed": 3}) == "topk, density 0.01"


def test_lines_of_one_method_have_its_colour_and_other_dashes() -> None:
    first, second, other = styles(
        [{"compressor": c, "density": d} for c, d in (("topk", 0.1), ("topk", 1), ("eden", 1))]
    )
    assert first.colour == second.colour != other.colour
    assert first.dash != second.dash


def test_more_settings_than_colours_stay_apart() -> None:
    assert len(set(styles([{"lr": n} for n in range(24)]))) == 24


def lab(colour: str, kind: np.ndarray) -> np.ndarray:
    """CIELAB coordinates of a colour as somebody sees it who lacks a kind of cone; whites are of D65."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.clip(kind @ np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    t = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    "kind",
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ],
    ids=["protanopia", "deuteranopia", "tritanopia"],
)
def test_colours_differ_for_every_kind_of_colour_vision(kind: list[list[float]]) -> None:
    """Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of CVD", TVCG 2009, severity 1."""
    colours = {look.colour for look in styles([{"lr": n} for n in range(6)])} | {"#000000"}
    seen = [lab(colour, np.array(kind)) for colour in sorted(colours)]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 15


def test_a_line_has_the_colour_of_the_method_that_it_has_of_those_in_which_lines_differ() -> None:
    lines = [{"compressor": "none"}, {"weight-bits": "8"}, {"weight-bits": "4"}, {"weight-bits": "2"}]
    lines += [{"lowrank-layers": "full"}, {"lowrank-layers": "full", "lowrank-rank": 0.1}]
    none, *bits, full, lower = styles(lines)
    assert none.colour == BASELINE
    assert len({look.colour for look in (*bits, full)}) == 4
    assert full.colour == lower.colour
    assert full.marker != lower.marker
