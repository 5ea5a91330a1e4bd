"""`main.py sweep` and `main.py report` as a user types them."""

import csv
import json
from pathlib import Path

import pytest
from torchvision import datasets

from fedsparse.commands import main
from fedsparse.data import load_dataset
from tests.e2e.as_user import tiny
from tests.fedsparse.report.made_up import result


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
    assert all((folder / name).stat().st_size > 1000 for name in ("plot.png", "curves.png", "report.html"))
    capsys.readouterr()
    assert main(sweep) == 0
    assert "2 of 2 cells are finished already" in capsys.readouterr().out

    assert main(["report", str(folder), "--logdir", str(tmp_path / "reports")]) == 0
    (written,) = (tmp_path / "reports").iterdir()
    assert {p.name for p in written.iterdir()} == {"table.md", "table.csv", "table.tex", "report.png", "report.html"}
    assert "| topk |" in capsys.readouterr().out


def test_a_report_may_be_among_the_folders_of_the_next_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    small = ["--dataset", tiny(tmp_path), "--clients", "4", "--clients-per-round", "2", "--rounds", "2"]
    small += ["--model", "mlp-small", "--workers", "1", "--logdir", str(runs)]
    assert main([*small, "--name", "fed"]) == 0
    assert main(["train-central", *small, "--name", "cen"]) == 0
    (tmp_path / "tiny.npz").unlink()
    load_dataset.cache_clear()
    for n in range(2):
        capsys.readouterr()
        assert main(["report", *map(str, sorted(runs.iterdir())), "--logdir", str(runs)]) == 0
        shown = capsys.readouterr()
        assert "| run | 1 |" in shown.out
        assert "| train-central | 1 |" in shown.out
        *skipped, missing = shown.err.splitlines()
        assert missing.startswith("without the picture of who holds what: ")
        assert [line.endswith("holds no result.json: it is not the folder of a run") for line in skipped] == [True] * n
    (picture, *_) = runs.glob("*-report/report.png")
    assert picture.stat().st_size > 1000


def test_a_report_never_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = result([0.1, 0.5], dataset="mnist", data_dir=str(tmp_path / "data"))
    (tmp_path / "result.json").write_text(json.dumps(run))
    asked: list[bool] = []

    def absent(*_: object, download: bool, **__: object) -> None:
        asked.append(download)
        raise RuntimeError("Dataset not found. You can use download=True to download it")

    monkeypatch.setattr(datasets, "MNIST", absent)
    assert main(["report", str(tmp_path / "result.json"), "--logdir", str(tmp_path / "reports")]) == 0
    assert asked == [False]
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "mnist: not found in" in shown.err
    assert "| 50.0% |" in shown.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sweep", "--seed", "7"], "--seed 7 has no effect: the file itself tries seed = 0, 1"),
        (["sweep", "--workers", "2"], "--workers has no effect on a sweep"),
        (["sweep", "--outfile", "x.json"], "--outfile has no effect on a sweep"),
        (["report", "--seed", "7"], "--seed has no effect on a report"),
    ],
)
def test_a_flag_without_effect_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    (tmp_path / "grid.yaml").write_text("grid: {seed: [0, 1]}")
    command, *flags = arguments
    assert main([command, str(tmp_path / "grid.yaml"), *flags, "--logdir", str(tmp_path / "runs")]) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        ("grid: {clients: [10, 20000]}", "20000 clients"),
        ("base: {lora-rank: 2}\ngrid: {lora-layers: ['*', 'none.*']}", "no layer fits none.*"),
    ],
)
def test_a_cell_that_cannot_run_is_told_before_any_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grid: str, line: str
) -> None:
    (tmp_path / "grid.yaml").write_text(grid)
    assert main(["sweep", str(tmp_path / "grid.yaml"), "--logdir", str(tmp_path / "runs")]) == 2
    assert line in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/grid"))
