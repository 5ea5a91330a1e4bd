"""`main.py sweep` and `main.py report` as a user types them."""

import csv
from pathlib import Path

import pytest

from fedsparse.commands import main
from tests.e2e.test_main import tiny


def test_a_sweep_runs_every_cell_and_report_compares_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid.yaml").write_text(
        "base: {clients: 10, clients-per-round: 2, rounds: 2, eval-every: 1}\ngrid: {compressor: [none, topk]}\n"
    )
    sweep = ["sweep", str(tmp_path / "grid.yaml"), "--dataset", tiny(tmp_path), "--logdir", str(tmp_path / "runs")]
    assert main([*sweep, "--jobs", "2"]) == 0
    folder = tmp_path / "runs/grid"
    none, topk = csv.DictReader((folder / "table.csv").open())
    assert (none["compressor"], topk["compressor"]) == ("none", "topk")
    assert float(topk["uplink-bytes"]) < float(none["uplink-bytes"]) / 5
    assert (folder / "plot.png").stat().st_size > 1000
    capsys.readouterr()
    assert main(sweep) == 0
    assert "2 of 2 cells are finished already" in capsys.readouterr().out

    assert main(["report", str(folder), "--logdir", str(tmp_path / "reports")]) == 0
    (written,) = (tmp_path / "reports").iterdir()
    assert {p.name for p in written.iterdir()} == {"table.md", "table.csv", "report.png"}
    assert "| topk |" in capsys.readouterr().out


def test_a_cell_with_a_mistake_is_reported_before_any_cell_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grid.yaml").write_text("grid: {clients: [10, 20000]}")
    assert main(["sweep", str(tmp_path / "grid.yaml"), "--logdir", str(tmp_path / "runs")]) == 2
    assert "20000 clients" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/grid"))
