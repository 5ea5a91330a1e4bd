"""`main.py report` by its switches: summaries, bytes, densities, and runs that go on."""

import threading
from pathlib import Path

import pytest

from fedsparse.commands import main
from fedsparse.commands import report as report_command
from fedsparse.config import Config
from fedsparse.files import is_locked, locked
from fedsparse.report.compare import Comparison
from fedsparse.report.sides import bytes_picture, densities_picture
from fedsparse.telemetry.recorder import Recorder
from tests.fedsparse.report.made_up import result


def recorder(folder: Path, rounds: int, **settings: object) -> Recorder:
    """Of a run that is not at its end: it has recorded some rounds, and was not closed."""
    folder.mkdir(parents=True)
    made = Recorder(Config.from_mapping({"rounds": 9, **settings}).flat(), folder, "", 9, dense_bytes=1000)
    for n in range(rounds + 1):
        one_more(made, n)
    return made


def one_more(made: Recorder, n: int) -> None:
    sent = (
        {"comm/uplink_bytes": 20.0, "comm/downlink_bytes": 80.0, "comm/clients": 2.0, "comm/messages": 2.0} if n else {}
    )
    made.record(n, {"eval/accuracy": 0.1 + n / 10, "eval/loss": 1.0, "time/round": 1.5, "time/forward": 1.0, **sent})


def test_a_summary_is_the_one_that_the_run_said_at_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with recorder(tmp_path / "run", 3):
        capsys.readouterr()
    said = capsys.readouterr().out
    assert "100.0 times below dense" in said
    assert main(["report", str(tmp_path / "run"), "--summary", "--logdir", str(tmp_path / "reports")]) == 0
    again = capsys.readouterr().out
    first, *rest = again.splitlines()
    assert first.startswith("rounds")  # its seconds were taken a moment earlier
    assert [line.split() for line in rest] == [line.replace("0%", "%").split() for line in said.splitlines()[1:]]
    assert not (tmp_path / "reports").exists()


def test_a_killed_run_has_a_summary_with_what_its_checkpoint_knew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = recorder(tmp_path / "run", 2)
    killed.save()
    one_more(killed, 3)
    assert main(["report", str(tmp_path / "run"), "--summary"]) == 0
    said = capsys.readouterr().out
    assert "3 (killed or running) in 6.0 s" in said
    assert "60 B, 100.0 times below dense" in said
    assert "both ways  300 B, 40.0 times below dense" in said


def test_a_run_that_goes_on_is_drawn_anew_until_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_command, "LOOK_EVERY", 0.02)
    folder, drawn = tmp_path / "runs/run", threading.Event()
    run = recorder(folder, 1, dataset="absent.npz")
    written = report_command.write_page

    def write_page(place: Path, *rest: object) -> None:
        written(place, *rest)  # type: ignore[arg-type]
        pages.append((place / "report.html").read_text())
        drawn.set()

    pages: list[str] = []
    monkeypatch.setattr(report_command, "write_page", write_page)

    def go_on() -> None:
        with locked(folder):
            started.set()
            drawn.wait(60)
            drawn.clear()
            one_more(run, 2)
            drawn.wait(60)

    started = threading.Event()
    thread = threading.Thread(target=go_on)
    thread.start()
    started.wait(60)
    assert main(["report", str(folder), "--follow", "--format", "svg", "--logdir", str(tmp_path / "reports")]) == 0
    thread.join()
    shown = capsys.readouterr().out
    assert "1 runs, 2 rounds; drawn in" in shown
    assert "1 runs, 3 rounds; drawn in" in shown
    assert ['http-equiv="refresh"' in page for page in pages] == [True, True, False]


def test_a_lock_is_seen_and_left_as_it_is(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


@pytest.mark.parametrize(
    ("switch", "names"),
    [
        ("--compare-comm", {"comm.svg"}),
        ("--compare-sparse", {"sparse.svg"}),
        ("--full", {"comm.svg", "sparse.svg", "report.svg", "report.html"}),
    ],
)
def test_each_switch_has_its_pictures(tmp_path: Path, switch: str, names: set[str]) -> None:
    for seed in (0, 1):
        recorder(tmp_path / f"runs/{seed}", 3, seed=seed, dataset="absent.npz")
    reports = ["--logdir", str(tmp_path / "reports"), "--format", "svg"]
    assert main(["report", str(tmp_path / "runs"), switch, *reports]) == 0
    (folder,) = (tmp_path / "reports").iterdir()
    assert {file.name for file in folder.iterdir()} == names | {"table.md", "table.csv", "table.tex"}


def test_bytes_are_drawn_as_a_bar_each_way_and_densities_as_lines_over_rounds() -> None:
    runs = [({"sparsity": s}, result([0.1, 0.5, 0.6])) for s in (0.5, 0.8)]
    for settings, one in runs:
        for row in one["rounds"]:
            row["topology/density"], row["compress/density"] = 1 - settings["sparsity"], 0.06
    comparison = Comparison(runs)
    bars, _ = bytes_picture(comparison.rows, "screen").axes
    assert [bar.get_width() for bar in bars.patches] == [2000, 2000, 4000, 4000]
    points, weights, updates = densities_picture(comparison.runs, comparison.rows, "screen").axes
    assert [round(float(c[0].get_xdata()[0]), 9) for c in points.containers] == [0.5, 0.2]
    assert [line.get_ydata().round(9).tolist() for line in weights.lines] == [[0.5, 0.5], [0.2, 0.2]]
    assert [line.get_ydata().tolist() for line in updates.lines] == [[0.06, 0.06]] * 2
