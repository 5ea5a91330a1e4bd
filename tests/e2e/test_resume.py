"""A run that was killed or interrupted goes on, and ends as an undisturbed run, to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fedsparse
import fedsparse.clients.client_app
import fedsparse.strategies.round_end
import fedsparse.strategies.server_app
from fedsparse.checkpoint import Checkpoints
from fedsparse.commands import main
from tests.e2e.as_user import ROOT, tiny
from tests.e2e.deployment import wait_until
from tests.e2e.kills import JOBS, SMALL, outcome

Outcome = tuple[str, list[dict[str, str]]]


def flags_of(tmp_path: Path, logdir: str, *more: str) -> list[str]:
    data = tmp_path / "tiny.npz" if (tmp_path / "tiny.npz").exists() else tiny(tmp_path)
    return [*SMALL, "--workers", "1", "--dataset", str(data), "--logdir", str(tmp_path / logdir), *more]


def folder_in(logdir: Path) -> Path:
    (folder,) = (path for path in logdir.iterdir() if path.is_dir())
    return folder


def undisturbed(tmp_path: Path, *more: str) -> Outcome:
    assert main(flags_of(tmp_path, "whole", *more)) == 0
    return outcome(folder_in(tmp_path / "whole"))


def cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object, name: str, call: int, error: type[BaseException],
    *more: str,
) -> Path:  # fmt: skip
    """The folder of a run in which a function raises an error at its ``call``-th call."""
    original, calls = getattr(place, name), [0]

    def fatal(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            raise error("as told")
        return original(*args, **kwargs)

    monkeypatch.setattr(place, name, fatal)
    assert main(flags_of(tmp_path, "cut", *more)) != 0
    monkeypatch.undo()
    return folder_in(tmp_path / "cut")


def test_killed_runs_of_every_kind_of_memory_end_with_the_same_bits(tmp_path: Path) -> None:
    """Contexts and files; SIGKILL in training, coding, the server's step, and while a checkpoint is written."""
    command = [sys.executable, "-m", "tests.e2e.kills", str(tmp_path), "each", "1"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("equal") == len(JOBS)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [("1", 40), ("2", 10)])
def test_runs_killed_at_fifty_random_moments_end_with_the_same_bits(tmp_path: Path, workers: str, kills: int) -> None:
    command = [sys.executable, "-m", "tests.e2e.kills", str(tmp_path), str(kills), workers, workers]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("equal") == kills


@pytest.mark.parametrize("store", ["context", "files"])
def test_after_ctrl_c_in_the_middle_of_a_round_a_run_goes_on_from_the_last_whole_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    more = ["--checkpoint-every", "0", "--state-store", store, "--cohort-batching", "off", "--compressor", "dgc"]
    whole = undisturbed(tmp_path, *more)
    second_of_round_5 = 14
    folder = cut_short(
        tmp_path,
        monkeypatch,
        fedsparse.clients.client_app,
        "encode_update",
        second_of_round_5,
        KeyboardInterrupt,
        *more,
    )
    result = json.loads((folder / "result.json").read_text())
    assert (result["summary"]["ended"], result["summary"]["rounds"]) == ("interrupted", 4)
    capsys.readouterr()
    assert main(["--resume", str(folder)]) == 0
    assert f"{folder} goes on after round 4" in capsys.readouterr().out
    assert outcome(folder) == whole
    assert not (folder / "checkpoint").exists()


def test_a_resumed_runs_tensorboard_has_every_round_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cut_short(
        tmp_path, monkeypatch, fedsparse.strategies.round_end, "evaluate", 4, KeyboardInterrupt
    )  # in round 6
    newest = Checkpoints(folder / "checkpoint").load(pytest.fail)
    assert newest is not None
    assert newest.round == 4  # round 5 was recorded after it, and round 6 half
    assert main(["--resume", str(folder)]) == 0
    board = EventAccumulator(str(folder)).Reload()
    assert [s.step for s in board.Scalars("train/loss")] == list(range(1, 9))
    assert [s.step for s in board.Scalars("eval/accuracy")] == [0, 2, 4, 6, 8]
    assert [s.step for s in board.Scalars("at the end/accuracy")] == [8]
    assert len(board.Tensors("config/text_summary")) == 1


def test_a_run_that_failed_or_was_killed_before_its_first_checkpoint_begins_anew_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = undisturbed(tmp_path)
    folder = cut_short(tmp_path, monkeypatch, fedsparse.strategies.round_end, "evaluate", 1, MemoryError)
    assert not (folder / "checkpoint").exists()
    assert main(["--resume", str(folder)]) == 0
    assert "has no checkpoint, so it begins anew" in capsys.readouterr().out
    assert outcome(folder) == whole


def test_a_killed_runs_folder_is_read_as_a_finished_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: dict[str, bytes] = {}
    original = Checkpoints.write

    def write(self: Checkpoints, round: int, *args: object, **kwargs: object) -> None:
        original(self, round, *args, **kwargs)
        if round == 4:  # what a kill in round 5 leaves
            kept.update({name: (self.folder.parent / name).read_bytes() for name in ("result.json", "config.yaml")})

    monkeypatch.setattr(Checkpoints, "write", write)
    assert main(flags_of(tmp_path, "runs")) == 0
    (tmp_path / "killed").mkdir()
    for name, content in kept.items():
        (tmp_path / "killed" / name).write_bytes(content)
    capsys.readouterr()
    assert main(["report", str(tmp_path / "killed"), "--logdir", str(tmp_path / "reports")]) == 0
    assert "killed or running, round 4 of 8" in capsys.readouterr().out
    result = fedsparse.Result(tmp_path / "killed")
    assert [row["round"] for row in result.rounds] == [0, 1, 2, 3, 4]
    assert len(result.summary["weights-hash"]) == 16


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete run that keeps its checkpoint."""
    tmp_path = tmp_path_factory.mktemp("complete")
    assert main(flags_of(tmp_path, "runs")) == 0
    return folder_in(tmp_path / "runs")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--lr", "0.5", "--batch-size", "4"], "this run has batch-size = 8, lr = 0.1, and you ask for batch-size = 4"),
        (["--rounds", "5"], "this run has rounds = 8, and you ask for rounds = 5; only rounds may grow"),
        (["--resume", "nowhere"], "it has no config.yaml, so it is not the folder of a run"),
        (["--beta", "0.5"], "beta = 0.5"),
    ],
)
def test_settings_that_disagree_are_an_error_that_names_them(
    complete: Path, capsys: pytest.CaptureFixture[str], more: list[str], line: str
) -> None:
    assert main(["--resume", str(complete), *more]) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


def test_a_complete_run_is_left_alone_and_more_rounds_make_it_go_on(
    complete: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (complete / "result.json").read_bytes()
    assert main(["--resume", str(complete)]) == 0
    assert "is complete; --rounds gives it more rounds" in capsys.readouterr().err
    assert (complete / "result.json").read_bytes() == before
    result = fedsparse.run(resume=complete, rounds=10, workers=1)
    assert [row["round"] for row in result.rounds] == list(range(11))
    assert result.config.rounds == 10
    assert result.folder == complete


def test_a_complete_run_keeps_a_checkpoint_only_when_checkpoints_were_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags_of(tmp_path, "runs", "--checkpoint-every", "0", "--rounds", "1")) == 0
    folder = folder_in(tmp_path / "runs")
    assert not (folder / "checkpoint").exists()
    assert main(["--resume", str(folder), "--rounds", "2"]) == 2
    assert "complete runs keep a checkpoint only with checkpoint-every" in capsys.readouterr().err


def test_only_one_process_at_a_time_goes_on_with_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []

    def resume_beside(original: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **kwargs: object) -> object:
            capsys.readouterr()
            assert main(["--resume", str(folder_in(tmp_path / "runs"))]) == 1  # a lock holds within a process too
            lines.append(capsys.readouterr().err)
            return original(*args, **kwargs)

        return act

    monkeypatch.setattr(fedsparse.strategies.server_app, "play", resume_beside(fedsparse.strategies.server_app.play))
    assert main(flags_of(tmp_path, "runs", "--rounds", "1")) == 0
    assert lines[0].endswith("is still running\n")
    assert lines[0].count("\n") == 1


def test_a_run_whose_folder_is_removed_fails_with_one_line_and_saves_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, calls = fedsparse.clients.client_app.encode_update, [0]

    def removing(*args: object) -> object:
        calls[0] += 1
        if calls[0] == 5:
            shutil.rmtree(tmp_path / "runs")
        return original(*args)

    monkeypatch.setattr(fedsparse.clients.client_app, "encode_update", removing)
    outfile = tmp_path / "out.json"
    more = ["--state-store", "files", "--cohort-batching", "off", "--outfile", str(outfile)]
    assert main(flags_of(tmp_path, "runs", *more)) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].endswith(" was removed")
    assert json.loads(outfile.read_text())["summary"]["ended"] == "failed"
    assert list(tmp_path.glob("runs/*/model.pt"))


@pytest.mark.parametrize(("signals", "saved"), [(1, 4), (2, 2)])
def test_a_signal_after_the_servers_step_waits_for_the_end_of_the_round_and_a_second_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int, saved: int
) -> None:
    original, calls = fedsparse.strategies.round_end.evaluate, [0]

    def signalled(*args: object) -> object:
        calls[0] += 1
        if calls[0] == 3:  # in round 4
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)
        return original(*args)

    monkeypatch.setattr(fedsparse.strategies.round_end, "evaluate", signalled)
    assert main(flags_of(tmp_path, "runs", "--checkpoint-every", "2")) == 130
    newest = Checkpoints(folder_in(tmp_path / "runs") / "checkpoint").load(pytest.fail)
    assert newest is not None
    assert newest.round == saved


@pytest.mark.parametrize("ending", [signal.SIGQUIT, signal.SIGUSR1])
def test_sigquit_and_sigusr1_stop_a_run_as_ctrl_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    original = fedsparse.strategies.round_end.evaluate
    rounds: list[int] = []

    def signalled(*args: object) -> object:
        rounds.append(1)
        if len(rounds) == 3:
            os.kill(os.getpid(), ending)
        return original(*args)

    monkeypatch.setattr(fedsparse.strategies.round_end, "evaluate", signalled)
    before = {number: signal.getsignal(number) for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGINT)}
    signal.signal(ending, signal.SIG_DFL)  # shells ignore SIGQUIT for background jobs, and a run heeds that
    try:
        assert main(flags_of(tmp_path, "runs")) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    folder = folder_in(tmp_path / "runs")
    assert json.loads((folder / "result.json").read_text())["summary"]["ended"] == "interrupted"
    assert list(folder.glob("checkpoint/*.json"))


@pytest.mark.slow
def test_a_sweep_goes_on_with_a_cell_that_was_cut_short(tmp_path: Path) -> None:
    """The first attempt is killed with its sweep; its cell stops by itself, with a checkpoint."""
    (tmp_path / "grid.yaml").write_text(f"base: {{dataset: {tiny(tmp_path)}}}\ngrid: {{seed: [0]}}\n")
    flags = ["sweep", str(tmp_path / "grid.yaml"), *SMALL[:-4], "--rounds", "400", "--eval-every", "400"]
    flags += ["--logdir", str(tmp_path / "runs")]
    with subprocess.Popen([sys.executable, "main.py", *flags], cwd=ROOT, stdout=subprocess.DEVNULL) as killed:
        wait_until(
            lambda: any(len(f.read_text().splitlines()) > 3 for f in tmp_path.glob("runs/*/*/*/rounds.csv")), 120
        )
        killed.kill()
    wait_until(lambda: any("interrupted" in f.read_text() for f in tmp_path.glob("runs/*/*/result.json")), 60)
    assert main(flags) == 0
    (log,) = tmp_path.glob("runs/*/*/log.txt")
    assert "goes on after round" in log.read_text()
