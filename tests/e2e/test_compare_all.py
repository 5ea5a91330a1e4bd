"""`main.py compare-all`."""

import csv
from pathlib import Path

import pytest

from fedsparse.catalogue import COMPRESSORS
from fedsparse.commands import main
from fedsparse.config.presets import PRESETS
from fedsparse.report.grid import Cell
from tests.e2e.as_user import tiny

SMALL = ["--clients", "4", "--clients-per-round", "2", "--rounds", "2", "--model", "mlp-small", "--batch-size", "8"]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells that the command hands to sweep, which runs none of them."""
    cells: list[Cell] = []
    monkeypatch.setattr(
        "fedsparse.commands.compare_all.run_plan", lambda plan, settings, jobs: cells.extend(plan.cells)
    )
    return cells


def test_every_compressor_is_tried_at_equal_density_and_at_equal_bytes_if_it_has_a_density(
    tmp_path: Path, planned: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["compare-all", *SMALL, "--dataset", tiny(tmp_path), "--logdir", str(tmp_path)]
    assert main([*job, "--density", "0.05", "--uplink-budget", "8kB", "--seeds", "2", "--seed", "3"]) == 0
    tried = [(cell.config.compressor, cell.config.uplink_budget) for cell in planned if cell.config.seed == 4]
    assert len(planned) == 2 * len(tried)
    assert {name for name, _ in tried} == {*COMPRESSORS, *PRESETS}
    for name in ("topk", "randomk", "lowrank", "stc", "sparseloco"):
        assert [budget for tried_name, budget in tried if tried_name == name] == ["", "8kB"]
    for name in ("none", "signsgd", "eden"):
        assert [budget for tried_name, budget in tried if tried_name == name] == [""]
    assert {cell.chosen["density"] for cell in planned if "density" in cell.chosen} == {0.05}
    assert "as they are, because no density changes their bytes: none, threshold, signsgd," in capsys.readouterr().out


def test_the_help_says_that_compressors_may_be_named_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare-all", "--help"])
    assert "--compressor A,B,C" in capsys.readouterr().out


def test_what_the_settings_do_not_allow_is_told_and_left_out(
    tmp_path: Path, planned: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["compare-all", *SMALL, "--dataset", tiny(tmp_path), "--logdir", str(tmp_path), "--values", "int8"]
    assert main(job) == 0
    shown = capsys.readouterr().out
    assert "without stc, 0.06: values = int8: compressor = stc means sign" in shown
    assert not [cell for cell in planned if cell.config.compressor == "stc"]
    topk = [cell.config.uplink_budget for cell in planned if cell.config.compressor == "topk"]
    assert f"at density 0.06, and at an uplink budget of {topk[1]}: {len(planned)} runs in " in shown


def test_compressors_with_commas_are_tried_alone_and_a_budget_without_a_density_alone(
    tmp_path: Path, planned: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["compare-all", *SMALL, "--dataset", tiny(tmp_path), "--logdir", str(tmp_path), "--seeds", "2"]
    assert main([*job, "--compressor", "none, topk,stc", "--uplink-budget", "8kB"]) == 0
    tried = [("none", ""), ("topk", "8kB"), ("stc", "8kB")]
    assert [(cell.config.compressor, cell.config.uplink_budget) for cell in planned] == [*tried, *tried]
    assert "\nat an uplink budget of 8kB: 6 runs in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--compressor", "topk"], "compressor = topk: nothing to compare it with; name several, with commas"),
        (["--compressor", "topk,topp"], "compressor = topp: did you mean topk?"),
        (["--compressor", "topk,stc", "--uplink-budget", "1B"], "leave no compressor that could be tried"),
        (["--seeds", "0"], "seeds = 0: should be a whole number above 0"),
        (["--outfile", "out.json"], "--outfile has no effect on a sweep"),
        (["--beta", "0.3"], "beta = 0.3 has no effect"),
    ],
)
def test_a_mistake_is_one_line(flags: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare-all", *flags]) == 2
    assert line in (told := capsys.readouterr().err)
    assert told.count("\n") == 1


@pytest.mark.slow
def test_it_ends_with_the_page_and_typed_again_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ["compare-all", *SMALL, "--dataset", tiny(tmp_path), "--logdir", str(tmp_path), "--jobs", "2"]
    assert main(job) == 0
    assert (tmp_path / "compare-all" / "report.html").stat().st_size > 10000
    rows = list(csv.DictReader((tmp_path / "compare-all" / "table.csv").open()))
    assert {row["compressor"] for row in rows} == {*COMPRESSORS, *PRESETS}
    capsys.readouterr()
    assert main(job) == 0
    assert f"{len(rows)} of {len(rows)} cells are finished already" in capsys.readouterr().out
