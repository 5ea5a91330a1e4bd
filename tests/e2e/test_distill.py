"""`main.py distill`, and `--distill` of a federation, as a user types them."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fedsparse.commands import main
from tests.e2e.as_user import tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model trained on 200 pooled images."""
    folder = tmp_path_factory.mktemp("teacher")
    arguments = ["train-central", "--dataset", tiny(folder), "--clients", "10", "--rounds", "4", "--epochs", "5"]
    assert main([*arguments, "--batch-size", "8", "--eval-every", "2", "--logdir", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").iterdir()
    return run


def distill(teacher: Path, logdir: Path, *flags: str) -> int:
    arguments = ["--teacher", str(teacher / "model.pt"), "--model", "mlp-small", "--rounds", "2", "--epochs", "4"]
    return main(["distill", *arguments, "--logdir", str(logdir), *flags])


def test_a_smaller_model_learns_from_a_teacher_without_a_label(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(teacher, tmp_path, "--mix", "1", "--temperature", "2") == 0
    (folder,) = tmp_path.iterdir()
    summary = json.loads((folder / "result.json").read_text())["summary"]
    known = json.loads((teacher / "result.json").read_text())["summary"]["accuracy"]
    assert summary["teacher-accuracy"] == pytest.approx(known)
    assert f"accuracy of the teacher, cnn-small: {known:.2%}" in capsys.readouterr().out
    assert summary["accuracy"] > 0.4
    assert torch.load(folder / "model.pt")["1.weight"].shape == (32, 784)


def test_with_mix_0_it_trains_as_train_central_does(teacher: Path, tmp_path: Path) -> None:
    assert distill(teacher, tmp_path / "distilled", "--mix", "0") == 0
    data = json.loads((teacher / "result.json").read_text())["config"]["dataset"]
    flags = ["--dataset", data, "--model", "mlp-small", "--rounds", "2", "--epochs", "4", "--clients", "10"]
    assert main(["train-central", *flags, "--logdir", str(tmp_path / "central")]) == 0
    models = [torch.load(next((tmp_path / way).glob("*/model.pt"))) for way in ("distilled", "central")]
    for name, tensor in models[0].items():
        torch.testing.assert_close(tensor, models[1][name])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--mix", "1.5"], "mix = 1.5: should be a number from 0 to 1"),
        (["--temperature", "0"], "temperature = 0: should be above 0"),
        (["--teacher", "nowhere.pt"], "teacher = nowhere.pt: there is no such file"),
        (["--distill", "global"], "distill has no global model and no cohort to learn from"),
    ],
)
def test_a_mistake_is_one_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    assert distill(teacher, tmp_path, *flags) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_teacher_without_its_settings_is_one_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(teacher / "model.pt", tmp_path)
    assert distill(tmp_path, tmp_path) == 2
    assert "has no config.yaml beside it, which says what model it is" in capsys.readouterr().err


@pytest.mark.parametrize("distill", ["not-true", "ensemble"])
def test_a_distilling_federation_is_the_same_to_the_bit_for_any_number_of_workers(tmp_path: Path, distill: str) -> None:
    flags = ["--dataset", tiny(tmp_path), "--clients", "10", "--clients-per-round", "3", "--rounds", "2"]
    flags += [
        "--model",
        "mlp-small",
        "--distill",
        distill,
        *(["--distill-samples", "50", "--distill-steps", "3"] * (distill == "ensemble")),
    ]
    hashes = []
    for workers in ("1", "2"):
        out = tmp_path / f"{workers}.json"
        own = ["--workers", workers, "--outfile", str(out), "--logdir", str(tmp_path / "runs")]
        assert main([*flags, *own]) == 0
        hashes.append(json.loads(out.read_text())["summary"]["weights-hash"])
    assert hashes[0] == hashes[1]
