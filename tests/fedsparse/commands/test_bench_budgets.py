"""bench-compressors recommends, for each budget of bytes, what loses the least of an update."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from fedsparse.commands import main
from fedsparse.commands.bench_budgets import Point, at_budgets, recommended
from fedsparse.config import Config
from fedsparse.report.bench_page import plot, write_bench_page
from fedsparse.vector import Entry, Layout

LAYOUT = Layout((Entry("matrix", (64, 64), 0, 4096),), 4096, 4096)
UPDATES = [np.random.default_rng(seed).standard_t(3, 4096).astype(np.float32) for seed in (0, 1)]


@pytest.mark.parametrize("name", ["hggtopk", "randomk", "stc", "lowrank"])
def test_a_compressor_with_a_density_stays_within_each_budget(name: str) -> None:
    points = at_budgets(name, Config.from_mapping({}), LAYOUT, UPDATES, [10, 20])
    assert [point.times for point in points] == [10, 20]
    assert all(point.bytes <= 4 * 4096 / point.times for point in points)


def test_top_k_fills_its_budget_and_loses_what_it_leaves_out() -> None:
    (point,) = at_budgets("hggtopk", Config.from_mapping({}), LAYOUT, UPDATES, [20])
    assert point.bytes > 0.95 * 4 * 4096 / 20
    errors = []
    for update in UPDATES:
        rest = np.sort(np.abs(update))[: 4096 - round(point.density * 4096)]
        errors.append(np.linalg.norm(rest) / np.linalg.norm(update))
    assert point.error == pytest.approx(np.mean(errors), rel=0.01)


def test_a_compressor_without_a_density_is_there_where_it_fits() -> None:
    points = at_budgets("signsgd", Config.from_mapping({}), LAYOUT, UPDATES, [10, 100])
    assert [point.times for point in points] == [10]


def test_the_least_error_wins_and_a_shorter_payload_may_win_a_larger_budget() -> None:
    points = [
        Point("stc", 10, 0.9, 1600, 0.8),
        Point("stc", 30, 0.1, 540, 0.5),
        Point("hggtopk", 10, 0.2, 1600, 0.6),
        Point("dgc", 10, 0.2, 1600, 0.6),  # sends what hggtopk does
        Point("eden", 30, float("nan"), 540, 0.55),
    ]
    assert [(p.compressor, p.bytes) for p in recommended(points, LAYOUT, 10)] == [
        ("stc", 540),
        ("eden", 540),
        ("hggtopk", 1600),
    ]
    assert [p.compressor for p in recommended(points, LAYOUT, 30)] == ["stc", "eden"]
    assert recommended(points, LAYOUT, 300) == []


def test_the_command_writes_tables_a_picture_and_a_page_with_a_line_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench-compressors", "--size", "2048", "--budgets", "20,1000", "--logdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\| 20 \| 410 \| \w+ \| [\d.]* \| 0\.\d+ \|", out, re.MULTILINE)
    assert re.search(r"^\| 1000 \| 8 \|  \|", out, re.MULTILINE)  # no payload is so short
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {
        *("budgets.csv", "compressors.csv", "compressors.html", "compressors.png"),
    }
    names = {row["compressor"] for row in csv.DictReader((folder / "budgets.csv").open())}
    page = (folder / "compressors.html").read_text()
    assert {"hggtopk", "stc"} <= names == set(re.findall(r'class="line" data-line="\d+" data-name="(\w+)"', page))
    assert "http" not in page.replace("http-equiv", "")


def test_a_page_may_have_no_lines(tmp_path: Path) -> None:
    write_bench_page(tmp_path, "nothing", {}, [], "")
    plot({}, "nothing").savefig(tmp_path / "nothing.png")
    assert "<svg" in (tmp_path / "compressors.html").read_text()


@pytest.mark.parametrize("budgets", ["0.5", "ten", "", "10,,20", "inf", "nan"])
def test_budgets_that_are_none_are_one_line(budgets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-compressors", "--size", "100", "--budgets", budgets]) == 2
    assert f": budgets = {budgets}: should be numbers of at least 1" in capsys.readouterr().err
