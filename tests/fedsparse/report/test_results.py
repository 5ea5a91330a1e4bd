"""Finding the results of runs in folders and files."""

import json
from pathlib import Path

import pytest

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.report.found import FoundRuns
from fedsparse.report.measures import measure
from fedsparse.report.results import marked
from fedsparse.report.table import Row, summarise
from fedsparse.telemetry.recorder import Recorder
from tests.fedsparse.report.made_up import result


def write(folder: Path, content: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    run = write(tmp_path / "a", result([0.1, 0.5]))
    assert len(FoundRuns([run, run / "result.json", tmp_path]).runs) == 1


def test_a_result_of_another_command_is_refused_alone_and_skipped_with_a_line_among_others(tmp_path: Path) -> None:
    write(tmp_path / "a", result([0.1, 0.5]))
    for name, content in (("b", {"command": "prune", "config": {}, "accuracy": {}}), ("c", {"accuracy": {}})):
        other = write(tmp_path / name, content)
        assert len(FoundRuns([tmp_path]).runs) == 1
        found = FoundRuns([tmp_path / "a", other])
        assert len(found.runs) == 1
        (note,) = found.notes
        assert str(other) in note
        with pytest.raises(ConfigError, match="is not the result of a run"):
            FoundRuns([other])


def test_folders_without_a_result_are_skipped_with_one_line_each(tmp_path: Path) -> None:
    run = write(tmp_path / "a", result([0.1, 0.5]))
    (tmp_path / "report").mkdir()
    found = FoundRuns([run, tmp_path / "report"])
    assert len(found.runs) == 1
    assert found.notes == [
        f"left out: {tmp_path / 'report'} holds no result.json: it is not the folder of a run",
    ]
    with pytest.raises(ConfigError, match="holds no result"):
        FoundRuns([tmp_path / "report"])
    with pytest.raises(ConfigError, match="there is no run folder"):
        FoundRuns([run, tmp_path / "nowhere"])


def test_a_damaged_result_among_others_is_not_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a", result([0.1, 0.5]))
    write(tmp_path / "b", {})
    (tmp_path / "b" / "result.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        FoundRuns([tmp_path])


@pytest.mark.parametrize("part", [{"summary": {}}, {"summary": []}, {"rounds": [1]}, {"rounds": {}}])
def test_a_damaged_result_is_refused_in_one_line(tmp_path: Path, part: dict) -> None:
    with pytest.raises(ConfigError, match="is damaged"):
        FoundRuns([write(tmp_path / "a", result([0.1]) | part)])


def test_settings_that_are_not_valid_are_told_with_the_file(tmp_path: Path) -> None:
    run = result([0.1, 0.5])
    run["config"]["nonsense"] = 1
    with pytest.raises(ConfigError, match=r"a/result\.json: unknown setting nonsense"):
        FoundRuns([write(tmp_path / "a", run)])


def rows(tmp_path: Path, *results: dict) -> list[Row]:
    for number, content in enumerate(results):
        write(tmp_path / str(number), content)
    return summarise(marked(FoundRuns([tmp_path]).runs))


def test_a_central_run_is_no_seed_of_the_federation(tmp_path: Path) -> None:
    federated, central = rows(tmp_path, result([0.1, 0.8], seed=0), result([0.1, 0.4], command="train-central", seed=0))
    assert (federated.settings["command"], central.settings["command"]) == ("run", "train-central")
    assert (federated.seeds, central.seeds) == (1, 1)


def test_settings_of_a_federation_do_not_tell_central_runs_apart(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, *(result([0.1, 0.4], command="train-central", compressor=c) for c in ("topk", "none")))
    assert (row.seeds, row.settings) == (1, {})


@pytest.mark.parametrize("settings", [{"exits": 1}, {"weight-bits": 4}, {"lowrank-layers": "full"}], ids=str)
def test_settings_of_the_network_tell_central_runs_apart(tmp_path: Path, settings: dict) -> None:
    runs = [result([0.1, 0.4], command="train-central", **changed) for changed in ({}, settings)]
    assert len(rows(tmp_path, *runs)) == 2


@pytest.mark.parametrize(
    ("flaw", "mark"),
    [({"ended": "interrupted"}, "interrupted"), ({"diverged": True}, "diverged"), ({"ended": "failed"}, "failed")],
)
def test_a_run_that_was_cut_short_is_marked_and_averaged_with_no_other(tmp_path: Path, flaw: dict, mark: str) -> None:
    sound = [result([0.1, 0.7, 0.8], seed=seed) for seed in (0, 1)]
    first, second = rows(tmp_path, *sound, result([0.1, 0.2], seed=2, rounds=2, **flaw))
    assert (first.seeds, first.settings) == (2, {"ended": ""})
    assert (second.seeds, second.settings) == (1, {"ended": f"{mark}, round 1 of 2"})
    assert first["accuracy"].mean == 0.8


def test_a_single_run_that_was_cut_short_is_marked(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, result([0.1, 0.2], ended="interrupted", rounds=60))
    assert row.settings == {"ended": "interrupted, round 1 of 60"}


def test_the_same_seed_counts_once_and_the_complete_run_stays(tmp_path: Path) -> None:
    cut = result([0.1, 0.2], ended="interrupted", rounds=3, seed=1)
    whole = result([0.1, 0.6, 0.7, 0.8], rounds=3, seed=1)
    other = result([0.1, 0.6, 0.7, 0.9], rounds=3, seed=2)
    again = json.loads(json.dumps(whole))
    again["config"] |= {"workers": 2, "name": "again", "logdir": "elsewhere"}
    for number, content in enumerate((cut, whole, again, other)):
        write(tmp_path / str(number), content)
    found = FoundRuns([tmp_path])
    (row,) = summarise(found.runs)
    assert row.seeds == 2
    assert row["accuracy"].mean == pytest.approx(0.85)
    assert found.notes == [f"left out: {tmp_path / name} repeats another run" for name in "02"]


def test_a_killed_run_is_read_from_its_rounds(tmp_path: Path) -> None:
    recorder = Recorder(Config(rounds=5).flat(), tmp_path, "", 5, dense_bytes=1000)
    recorder.record(0, {"eval/accuracy": 0.1, "eval/loss": 2.3})
    recorder.record(1, {"eval/accuracy": 0.6, "eval/loss": 1.0, "comm/uplink_bytes": 30.0, "time/round": 1.5})
    with (tmp_path / "rounds.csv").open("a") as file:
        file.write("2,0.5,0.")  # the kill came in the middle of a row
    ((settings, killed),) = marked(FoundRuns([tmp_path]).runs)
    assert settings == {"ended": "killed or running, round 1 of 5"}
    assert killed["command"] == "run"
    assert killed["rounds"] == recorder.rounds
    assert killed["config"] == Config(rounds=5).flat()
    assert measure(killed)["uplink-bytes"] == 30
    assert measure(killed)["seconds"] == 1.5


def test_a_killed_run_without_a_round_is_skipped(tmp_path: Path) -> None:
    run = write(tmp_path / "a", result([0.1, 0.5]))
    (tmp_path / "b").mkdir()
    Recorder(Config().flat(), tmp_path / "b", "", 5, dense_bytes=1000)
    assert "has no rounds" in FoundRuns([run, tmp_path / "b"]).notes[0]


@pytest.mark.parametrize("line", ["1,x", "1" + ",1" * 100])
def test_damaged_rounds_are_refused_in_one_line(tmp_path: Path, line: str) -> None:
    Recorder(Config().flat(), tmp_path, "", 5, dense_bytes=1000)
    with (tmp_path / "rounds.csv").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ConfigError, match="is damaged"):
        FoundRuns([tmp_path])
