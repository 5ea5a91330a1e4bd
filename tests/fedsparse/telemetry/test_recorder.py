"""TensorBoard, rounds.csv and the JSON have the same numbers when a run is complete, interrupted or failed."""

import csv
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedsparse.config import Config
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import Diverged, RunFailed
from fedsparse.telemetry.folder import OutputError, check_writable, create_run_folder
from fedsparse.telemetry.progress import human_bytes
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.tags import columns, measured_by_clients


def record(folder: Path, outfile: str = "", error: type[BaseException] | None = None) -> Recorder:
    recorder = Recorder(Config().flat(), folder, outfile, 2, dense_bytes=1000)
    try:
        with recorder:
            recorder.record(0, {"eval/accuracy": 0.1, "eval/loss": 2.3})
            recorder.record(1, {"train/loss": 2.0, "comm/uplink_bytes": 30.0, "comm/clients": 3.0})
            if error:
                raise error
            recorder.record(2, {"eval/accuracy": 0.5, "eval/loss": 1.5, "comm/uplink_bytes": 20.0, "comm/clients": 2.0})
    except (KeyboardInterrupt, RuntimeError):
        pass
    return recorder


def test_csv_json_and_tensorboard_agree(tmp_path: Path) -> None:
    recorder = record(tmp_path, outfile=str(tmp_path / "out.json"))
    rows = list(csv.DictReader((tmp_path / "rounds.csv").open()))
    result = json.loads((tmp_path / "result.json").read_text())
    assert json.loads((tmp_path / "out.json").read_text()) == result
    board = EventAccumulator(str(tmp_path)).Reload()
    assert list(rows[0]) == ["round", *recorder.tags]
    for row, entry in zip(rows, result["rounds"], strict=True):
        assert {k: float(v) for k, v in row.items() if v} == entry
        for tag, value in entry.items():
            if tag != "round":
                on_board = [s.value for s in board.Scalars(tag) if s.step == entry["round"]]
                assert on_board == [pytest.approx(value)], tag


def test_evaluations_of_a_small_run_stand_apart_over_the_uplink_and_the_simulated_seconds(tmp_path: Path) -> None:
    with Recorder({}, tmp_path, "", 3, dense_bytes=1) as recorder:
        for round, sent in enumerate((0, 30, 20)):
            network = {"comm/uplink_bytes": sent, "time/simulated": sent / 1000}
            recorder.record(round, {"eval/accuracy": 0.1, "eval/loss": 2.0, **network})
    board = EventAccumulator(str(tmp_path)).Reload()
    assert [s.step for s in board.Scalars("eval/accuracy_over_uplink_bytes")] == [0, 30, 50]
    assert [s.step for s in board.Scalars("eval/accuracy_over_simulated_ms")] == [0, 30, 50]


def test_rounds_csv_ends_its_lines_as_every_other_table(tmp_path: Path) -> None:
    record(tmp_path)
    assert b"\r" not in (tmp_path / "rounds.csv").read_bytes()


def test_totals_and_the_ratio_to_dense_come_from_real_bytes(tmp_path: Path) -> None:
    summary = record(tmp_path).summary()
    assert (summary["uplink-bytes"], summary["dense-uplink-bytes"], summary["uplink-ratio"]) == (50, 5000, 100.0)
    assert (summary["accuracy"], summary["rounds"], summary["ended"]) == (0.5, 2, "complete")


@pytest.mark.parametrize(("error", "ended"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")])
def test_the_rounds_so_far_are_saved_when_a_run_is_cut_short(
    tmp_path: Path, error: type[BaseException], ended: str
) -> None:
    record(tmp_path, error=error)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["summary"]["ended"] == ended
    assert [r["round"] for r in result["rounds"]] == [0, 1]


@pytest.mark.parametrize("loss", [1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("error", [None, Diverged("the loss is nan"), RunFailed("all clients failed")])
def test_a_result_says_which_command_made_it_and_whether_it_diverged(
    tmp_path: Path, loss: float, error: RunFailed | None
) -> None:
    with (
        suppress(RunFailed),
        Recorder({}, tmp_path, "", 2, dense_bytes=1, command="train-central") as recorder,
    ):
        recorder.record(1, {"eval/accuracy": 0.1, "eval/loss": loss})
        recorder.record(2, {"train/loss": 1.0})
        if error:
            raise error
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["command"] == "train-central"
    assert result["summary"]["diverged"] is (loss != 1.5 or isinstance(error, Diverged))


def test_the_saved_config_is_accepted_back(tmp_path: Path) -> None:
    record(tmp_path)
    assert Config.from_mapping(read_yaml(tmp_path / "config.yaml")) == Config()


def test_a_task_brings_its_own_metrics_and_the_first_is_the_headline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"perplexity": ".1f", "accuracy": ".2%"}
    with Recorder({}, tmp_path, "", 3, 1, metrics) as recorder:
        for round, perplexity in enumerate((50.25, 20.0, 30.0), start=1):
            recorder.record(round, {"eval/perplexity": perplexity, "eval/accuracy": 0.5, "eval/loss": 3.0})
    (row, *_) = csv.DictReader((tmp_path / "rounds.csv").open())
    assert list(row)[:10] == [
        "round",
        *("train/loss", "train/perplexity", "train/accuracy"),
        *("eval/loss", "eval/perplexity", "eval/accuracy"),
        *("eval/client_loss", "eval/client_perplexity", "eval/client_accuracy"),
    ]
    summary = json.loads((tmp_path / "result.json").read_text())["summary"]
    assert (summary["perplexity"], summary["best-perplexity"]) == (30, 20)
    board = EventAccumulator(str(tmp_path)).Reload()
    assert len(board.Scalars("eval/perplexity_over_uplink_bytes")) == 3
    shown = capsys.readouterr().out
    assert "round 1/3    perplexity   50.2" in shown
    assert "30.0 (best 20.0)" in shown


def test_a_classification_records_the_same_tags_as_ever(tmp_path: Path) -> None:
    assert record(tmp_path).tags[:6] == (
        *("train/loss", "train/accuracy", "eval/loss", "eval/accuracy"),
        *("eval/client_loss", "eval/client_accuracy"),
    )


def test_clients_measure_losses_metrics_and_the_seconds_of_stages_and_nothing_else() -> None:
    measured = set(measured_by_clients(["perplexity"]))
    assert {"train/loss", "train/perplexity", "eval/client_perplexity", "time/forward"} <= measured
    assert measured <= set(columns(["perplexity"]))
    assert not measured & {"eval/perplexity", "comm/uplink_bytes", "topology/density"}


def test_an_unknown_tag_is_refused(tmp_path: Path) -> None:
    with Recorder({}, tmp_path, "", 1, 1) as recorder, pytest.raises(KeyError, match="train/los"):
        recorder.record(1, {"train/los": 1.0})


def test_run_folders_never_collide(tmp_path: Path) -> None:
    assert len({create_run_folder(str(tmp_path), "x") for _ in range(5)}) == 5


def test_an_unwritable_result_is_reported_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for logdir, outfile, line in (
        (tmp_path / "file", "", "cannot make this folder"),
        (tmp_path / "file/below", "", "cannot make this folder"),
        (tmp_path, tmp_path / "nowhere/x.json", "does not exist"),
        (tmp_path, tmp_path, "is no regular file"),
    ):
        with pytest.raises(OutputError, match=line):
            check_writable(str(logdir), str(outfile))


def test_bytes_are_shown_in_decimal_units() -> None:
    assert [human_bytes(n) for n in (0, 999, 1000, 1234567, 2e9)] == ["0 B", "999 B", "1 kB", "1.23 MB", "2 GB"]


def test_an_installed_tensorflow_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom fedsparse.telemetry.events import SummaryWriter\n"
    code += f"SummaryWriter({str(tmp_path)!r}).add_scalar('a', 1.0, 1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.glob("events.*"))
