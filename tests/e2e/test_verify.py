"""`main.py verify`: a run's first rounds run again give its bits, or the command says why they do not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsparse.commands import main

SMALL = ["--clients", "4", "--clients-per-round", "2", "--rounds", "4", "--eval-every", "4", "--model", "mlp-small"]
SMALL += ["--batch-size", "8", "--workers", "1", "--compressor", "dgc", "--distribution", "dirichlet", "--beta", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: str) -> Path:
    """A run in the folder of a sweep's cell; the data set that it names is beside it."""
    cell = tmp_path_factory.mktemp("cell")
    shutil.copy(tiny_dataset, cell / "data.npz")
    flags = ["--dataset", str(cell / "data.npz"), "--logdir", str(cell), "--outfile", str(cell / "result.json")]
    assert main([*SMALL, *flags, "--name", "run"]) == 0
    return cell


def run_folder(cell: Path) -> Path:
    (folder,) = cell.glob("*-run")
    return folder


def changed(folder: Path, change: Any) -> Path:
    file = folder / "result.json"
    result = json.loads(file.read_text())
    change(result)
    file.write_text(json.dumps(result))
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the run folder, to be changed."""
    return Path(shutil.copytree(run_folder(made), tmp_path / "run"))


def test_a_run_says_where_its_numbers_come_from_from_its_start_on(made: Path) -> None:
    result = json.loads((made / "result.json").read_text())
    origin = json.loads((run_folder(made) / "provenance.json").read_text())
    assert result["provenance"] == origin
    assert {"code", "versions", "machine", "seed", "data-hash", "partition-hash", "initial-weights"} <= origin.keys()
    assert {"processor", "cores", "memory-gb", "gpus"} <= origin["machine"].keys()
    assert result["rounds"][-1]["weights/hash"] == int(result["summary"]["weights-hash"][:12], 16)
    assert len({row["weights/hash"] for row in result["rounds"]}) == 5


@pytest.mark.parametrize("place", ["run folder", "cell", "killed"])
def test_a_rerun_has_the_bits_of_the_run(
    made: Path, copied: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    if place == "killed":
        (copied / "result.json").unlink()
    folder = {"run folder": run_folder(made), "cell": made, "killed": copied}[place]
    assert main(["verify", str(folder), "--rounds", "2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"{folder}: running 2 of its 4 rounds again",
        f"{folder}: weights and measurements of rounds up to 2 are the same, to the bit",
    ]


def test_one_other_bit_in_the_weights_is_found_in_its_round(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def flip(result: Any) -> None:
        result["rounds"][3]["weights/hash"] ^= 1

    assert main(["verify", str(changed(copied, flip)), "--rounds", "2"]) == 0
    assert main(["verify", str(copied)]) == 1
    assert "round 3 is not the same: weights/hash" in (told := capsys.readouterr().err)
    assert "yet code, versions, machine and data are the same" in told


def test_what_differs_is_said_when_the_bits_do(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def other(result: Any) -> None:
        source = Path(result["config"]["dataset"])
        arrays = dict(np.load(source))
        arrays["x_train"][0] ^= 255
        np.savez(copied.parent / "data.npz", **arrays)
        result["config"]["dataset"] = str(copied.parent / "data.npz")
        result["provenance"]["versions"]["torch"] = "1.0"
        result["provenance"]["machine"]["processor"] = "abacus"

    assert main(["verify", str(changed(copied, other)), "--rounds", "1"]) == 1
    told = capsys.readouterr()
    assert "versions.torch: 1.0 then" in told.out
    assert "machine.processor: abacus then" in told.out
    assert "data-hash: " in told.out
    assert "partition-hash" not in told.out
    assert told.err.count("\n") == 1
    assert "round 0 is not the same: eval/loss" in told.err  # already the mean pixel is another


def test_a_central_run_is_verified_too(tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--dataset", tiny_dataset, "--model", "mlp-small", "--rounds", "2", "--logdir", str(tmp_path)]
    assert main(["train-central", *flags]) == 0
    assert main(["verify", str(tmp_path)]) == 0
    assert "rounds up to 2 are the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--rounds", "9"], "rounds = 9: should be a whole number from 1 to 4"),
        (["--rounds", "few"], "rounds = few: should be a whole number"),
        (["--lr", "1"], "--lr has no effect on verify"),
        (["--workers", "none"], "workers = none"),
    ],
)
def test_a_mistake_is_one_line(made: Path, capsys: pytest.CaptureFixture[str], more: list[str], line: str) -> None:
    assert main(["verify", str(made), *more]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("settings", [{"dp-noise-by": "clients", "compressor": "none"}, {"engine": "flower"}], ids=str)
def test_a_run_whose_noise_is_secret_has_no_bits_to_verify(
    copied: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, str]
) -> None:
    changed(copied, lambda result: result["config"].update({"dp-noise": 1.0, **settings}))
    assert main(["verify", str(copied)]) == 2
    assert "its noise for differential privacy is secret" in capsys.readouterr().err


def test_a_folder_without_a_run_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert main(["verify", str(tmp_path)]) == 2
    assert "there is no run folder" in capsys.readouterr().err
