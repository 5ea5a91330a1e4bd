"""`main.py train-central` and `main.py prune` as a user types them."""

import json
from pathlib import Path

import pytest
import torch

from fedsparse.commands import main
from tests.e2e.as_user import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model trained on 200 pooled images."""
    folder = tmp_path_factory.mktemp("central")
    arguments = ["train-central", "--dataset", tiny(folder), "--clients", "10", "--rounds", "4", "--epochs", "5"]
    assert main([*arguments, "--batch-size", "8", "--eval-every", "2", "--logdir", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").iterdir()
    return run


def test_central_training_learns_and_evaluates_when_due(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["summary"]["ended"] == "complete"
    assert result["summary"]["uplink-bytes"] == result["summary"]["downlink-bytes"] == 0
    assert [row["round"] for row in result["rounds"] if "eval/accuracy" in row] == [2, 4]
    losses = [row["train/loss"] for row in result["rounds"]]
    assert losses[-1] < losses[0] / 2
    assert result["summary"]["accuracy"] > 0.4


def test_central_training_refuses_a_sparse_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-central", "--sparsity", "0.9", "--logdir", str(tmp_path)]) == 2
    assert "trains every weight" in capsys.readouterr().err


def test_central_training_that_diverges_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train-central", "--dataset", tiny(tmp_path), "--clients", "10", "--lr", "1e6", "--epochs", "9"]
    assert main([*arguments, "--logdir", str(tmp_path / "runs")]) == 1
    assert "lower the learning rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--sparsity", "0.5"], 0.5),
        (["--sparsity", "0.8", "--method", "magnitude", "--samples", "20"], 0.2),
        (["--nm", "1:4"], 0.25),
    ],
)
def test_a_checkpoint_is_pruned_as_asked_and_saved(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], kept: float
) -> None:
    assert main(["prune", "--checkpoint", str(trained / "model.pt"), *flags, "--logdir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "accuracy before" in shown
    assert f"{1 - kept:.2%}" in shown
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "result.json").read_text())
    state = torch.load(folder / "model.pt", weights_only=True)
    assert set(result["layers"]) == {"3.weight", "7.weight"}  # the first and the last layer stay dense
    for name, layer in result["layers"].items():
        assert layer["kept"] == pytest.approx(kept * layer["weights"], abs=1)
        assert int((state[name] != 0).sum()) <= layer["kept"]
    assert result["accuracy"]["before"] == json.loads((trained / "result.json").read_text())["summary"]["accuracy"]


def test_a_checkpoint_with_nan_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(trained / "model.pt", weights_only=True)
    state["3.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pt")
    arguments = ["prune", "--checkpoint", str(tmp_path / "nan.pt"), "--sparsity", "0.5", "--logdir", str(tmp_path)]
    assert main(arguments) == 2
    assert "'3.weight' has NaN or infinity" in capsys.readouterr().err


def test_batchnorm_is_recalibrated_after_pruning(tmp_path: Path) -> None:
    from fedsparse.models import build_model

    model = build_model("mobilenet_v2", (1, 28, 28), 10, "batch", 0)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    arguments = ["prune", "--checkpoint", str(tmp_path / "net.pt"), "--model", "mobilenet_v2", "--sparsity", "0.5"]
    arguments += ["--dataset", tiny(tmp_path), "--clients", "10", "--samples", "16", "--method", "magnitude"]
    assert main([*arguments, "--logdir", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert "after BatchNorm recalibration" in json.loads((folder / "result.json").read_text())["accuracy"]
    state = torch.load(folder / "model.pt", weights_only=True)
    assert not torch.equal(state["features.0.1.running_mean"], model.state_dict()["features.0.1.running_mean"])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--sparsity", "0.5", "--checkpoint", "nowhere.pt"], "checkpoint = nowhere.pt: there is no such file"),
        (["--sparsity", "0.5", "--checkpoint", "README.md"], "is not a file that torch.save wrote"),
        (["--sparsity", "0.5", "--checkpoint", "MODEL", "--model", "lenet5"], "is not of model = lenet5"),
        (["--sparsity", "0.5"], "prune needs --checkpoint"),
        (["--checkpoint", "MODEL"], "prune needs either --sparsity, such as 0.5, or --nm, such as 2:4"),
        (["--checkpoint", "MODEL", "--sparsity", "0.5", "--nm", "2:4"], "either --sparsity, such as 0.5, or --nm"),
        (["--checkpoint", "MODEL", "--sparsity", "half"], "sparsity = half"),
        (["--checkpoint", "MODEL", "--sparsity", "1.5"], "sparsity = 1.5"),
        (["--checkpoint", "MODEL", "--nm", "4:2"], "nm = 4:2: should be N:M with 1 <= N <= M, such as 2:4"),
        (["--checkpoint", "MODEL", "--nm", "two"], "nm = two: should be N:M"),
        (["--checkpoint", "MODEL", "--nm", "2:4", "--method", "obs"], "method = obs: should be sparsegpt or magnitude"),
        (["--checkpoint", "MODEL", "--nm", "2:4", "--samples", "0"], "samples = 0: should be at least 1"),
    ],
)
def test_a_wrong_flag_of_prune_is_one_line_and_exit_code_2(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    arguments = [str(trained / "model.pt") if flag == "MODEL" else flag for flag in flags]
    assert main(["prune", *arguments, "--logdir", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert line in shown.err
    assert shown.err.count("\n") == 1
