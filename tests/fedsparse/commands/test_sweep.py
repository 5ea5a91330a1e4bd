"""How a sweep's cells are run, skipped, stopped and reported."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsparse.commands import cells as module
from fedsparse.commands.cells import finished, job_count, run_sweep
from fedsparse.config import Config
from fedsparse.errors import RunFailed
from fedsparse.files import locked
from fedsparse.report.grid import Sweep, read_sweep

STANDIN = [sys.executable, str(Path(__file__).with_name("standin.py"))]


def plan(tmp_path: Path, grid: str, **settings: Any) -> Sweep:
    file = tmp_path / "try.yaml"
    file.write_text(f"grid: {grid}\n")
    return read_sweep(file, {"logdir": str(tmp_path / "runs"), **settings})


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("cell")]


def test_a_sweep_leaves_a_result_a_cell_and_one_table_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(plan(tmp_path, "{lr: [0.1, 0.2], seed: [0, 1]}"), STANDIN, 2)
    folder = tmp_path / "runs/try"
    assert len(list(folder.glob("*/result.json"))) == 4
    assert {p.name for p in folder.iterdir() if p.is_file()} == {
        *("table.md", "table.csv", "table.tex", "plot.png", "curves.png", "report.html"),
    }
    assert "| 0.2 | 2 | 50.5% ± 6.4 |" in (folder / "table.md").read_text()
    assert "| 0.2 | 2 | 50.5% ± 6.4 |" in capsys.readouterr().out


def test_finished_cells_are_skipped_and_new_ones_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_sweep(plan(tmp_path, "{seed: [0, 1]}"), STANDIN, 1)
    assert shown(capsys) == ["1/2", "2/2"]
    run_sweep(plan(tmp_path, "{seed: [0, 1, 2]}"), STANDIN, 1)
    out = capsys.readouterr().out
    assert "2 of 3 cells are finished already" in out
    assert "cell 1/1  seed=2" in out
    assert "| 3 | 51.0%" in out


def test_a_finished_cell_is_known_by_its_settings_and_not_by_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = plan(tmp_path, "{seed: [0, 1]}")
    run_sweep(sweep, STANDIN, 1)
    folder = tmp_path / "runs/try"
    (folder / sweep.cells[0].name).rename(folder / "another-name")
    other = folder / sweep.cells[1].name / "result.json"
    result = json.loads(other.read_text())
    result["config"]["lr"] = 0.7  # what lies in this folder is another run
    other.write_text(json.dumps(result))
    capsys.readouterr()
    run_sweep(sweep, STANDIN, 1)
    assert shown(capsys) == ["1/1"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"config": {"nonsense": 1}, "rounds": [], "summary": {}}'])
def test_a_damaged_result_is_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    sweep = plan(tmp_path, "{seed: [0]}")
    run_sweep(sweep, STANDIN, 1)
    (tmp_path / "runs/try" / sweep.cells[0].name / "result.json").write_text(damage)
    capsys.readouterr()
    run_sweep(sweep, STANDIN, 1)
    assert shown(capsys) == ["1/1"]


def test_a_failing_cell_is_reported_and_the_other_cells_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = plan(tmp_path, "{lr: [0.1, 1, 0.2]}")
    with pytest.raises(RunFailed, match=r"1 of 3 cells failed; lr=1\.?0?-.*: it failed"):
        run_sweep(sweep, STANDIN, 1)
    assert shown(capsys) == ["1/3", "2/3", "3/3"]
    assert len(finished(tmp_path / "runs/try")) == 2


def test_a_cell_that_is_killed_is_told_by_its_signal_and_by_the_whole_path_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "with [red] brackets and :bug:"
    home.mkdir()
    with pytest.raises(RunFailed, match="killed by signal 9, perhaps out of memory"):
        run_sweep(plan(home, "{lr: [4]}"), STANDIN, 1)
    out = capsys.readouterr().out
    assert "failed: killed by signal 9, perhaps out of memory (all of it: " in out
    assert str(next(home.glob("runs/try/*/log.txt"))) in out


@pytest.mark.parametrize("lr", [2, 3])
def test_an_interrupted_sweep_keeps_finished_cells_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lr: int
) -> None:
    monkeypatch.setattr(module, "GRACE", 20 if lr == 2 else 0.5)
    children = []
    start = module._start
    monkeypatch.setattr(module, "_start", lambda *a: children.append(child := start(*a)) or child)
    sweep = plan(tmp_path, f"{{lr: [0.1, {lr}, 0.2]}}")
    running = tmp_path / "runs/try" / sweep.cells[1].name / "running"

    def interrupt() -> None:
        while not running.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, STANDIN, 1)
    assert len(finished(tmp_path / "runs/try")) == 1
    assert (tmp_path / "runs/try/table.md").exists()
    assert len(children) == 2
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.killpg(child.process.pid, 0)


def cut_short(folder: Path, settings: dict[str, Any]) -> Path:
    run = folder / "20260101-run"
    (run / "checkpoint").mkdir(parents=True)
    (run / "checkpoint/7.json").touch()
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    return run


def resumed(sweep: Sweep, folder: Path) -> list[str | None]:
    """The run that each cell went on from when it was last run; None for a cell that began anew or did not run."""
    arguments = [folder / cell.name / "arguments.json" for cell in sweep.cells]
    asked = [json.loads(file.read_text()) if file.exists() else [] for file in arguments]
    return [each[each.index("--resume") + 1] if "--resume" in each else None for each in asked]


def test_a_cell_that_was_cut_short_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    sweep, folder = plan(tmp_path, "{lr: [0.1, 0.2, 0.3]}"), tmp_path / "runs/try"
    first, second, third = sweep.cells
    same = cut_short(folder / first.name, first.config.flat())
    cut_short(folder / second.name, second.config.replace(lr=0.7).flat())
    (cut_short(folder / third.name, third.config.flat()) / "checkpoint/7.json").unlink()
    run_sweep(sweep, STANDIN, 1)
    assert resumed(sweep, folder) == [str(same), None, None]


def test_after_an_upgrade_that_brings_a_setting_only_cells_go_on_whose_settings_it_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, folder = plan(tmp_path, "{lr: [0.1, 0.2, 0.3], rounds: [20, 30]}"), tmp_path / "runs/try"
    done, _, short, _, other, _ = sweep.cells

    def of_before(config: Config) -> dict[str, Any]:
        """The settings of a version that had no exits."""
        return {key: value for key, value in config.flat().items() if key != "exits"}

    (folder / "done").mkdir(parents=True)
    result = {
        "config": of_before(done.config),
        "rounds": [],
        "summary": {"ended": "complete", "uplink-bytes": 1, "downlink-bytes": 1, "seconds": 1},
    }
    (folder / "done/result.json").write_text(json.dumps(result))
    run = cut_short(folder / "short", of_before(short.config))
    cut_short(folder / "other", of_before(other.config.replace(momentum=0.5)))  # the default was another
    run_sweep(sweep, STANDIN, 1)
    assert "1 of 6 cells are finished already" in capsys.readouterr().out
    assert resumed(sweep, folder) == [None, None, str(run), None, None, None]


def test_cells_run_side_by_side_when_asked(tmp_path: Path) -> None:
    sweep = plan(tmp_path, "{seed: [0, 1, 2]}", lr=2)
    folder = tmp_path / "runs/try"

    def interrupt() -> None:
        while len(list(folder.glob("*/running"))) < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, STANDIN, 3)


def test_automatic_jobs_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (cell,) = plan(tmp_path, "{seed: [0]}", device="cpu", threads=3).cells
    assert job_count("auto", cell) == 2
    assert job_count(5, cell) == 5


def test_a_sweep_that_is_running_is_not_run_twice(tmp_path: Path) -> None:
    sweep = plan(tmp_path, "{seed: [0]}")
    (tmp_path / "runs/try").mkdir(parents=True)
    with locked(tmp_path / "runs/try"), pytest.raises(RunFailed, match="is still running"):
        run_sweep(sweep, STANDIN, 1)
    run_sweep(sweep, STANDIN, 1)
