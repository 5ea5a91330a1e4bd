"""`main.py pack` and `main.py unpack` as a user types them."""

import json
from pathlib import Path

import pytest
import torch

from fedsparse.commands import main
from fedsparse.packing.packed_file import unpack_state
from tests.e2e.as_user import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model trained on 200 pooled images."""
    folder = tmp_path_factory.mktemp("central")
    arguments = ["train-central", "--dataset", tiny(folder), "--clients", "10", "--rounds", "3", "--epochs", "5"]
    assert main([*arguments, "--batch-size", "8", "--logdir", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_packed_model_is_many_times_smaller_and_comes_back_to_the_bit(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sparsity", "0.9", "--tune", "3", "--logdir", str(tmp_path)]
    assert main(["pack", "--checkpoint", str(trained / "model.pt"), *flags]) == 0
    shown = capsys.readouterr().out
    for step in ("before", "after pruning", "after training what is left", "after clustering", "of the file"):
        assert f"accuracy {step}: " in shown
    (folder,) = tmp_path.iterdir()
    result, file = json.loads((folder / "result.json").read_text()), folder / "model.fspk"
    assert result["bytes"] == file.stat().st_size < result["float-bytes"] / 20
    assert result["accuracy"]["of the file"] > result["accuracy"]["before"] - 0.1
    assert result["layers"]["7.weight"]["kept"] == round(0.1 * 50176)
    assert all(layer["clusters"] <= layer["kept"] / 8 for layer in result["layers"].values())
    assert main(["unpack", str(file), "--out", str(tmp_path / "back.pt")]) == 0
    back, packed = torch.load(tmp_path / "back.pt", weights_only=True), unpack_state(file.read_bytes())[0]
    assert all(torch.equal(back[name], packed[name]) for name in packed)
    # What is unpacked is a checkpoint like any other: packed as it is, it has the accuracy of the file.
    flags = ["--tune", "0", "--clusters", "256", "--logdir", str(tmp_path / "again"), "--dataset"]
    data = str(json.loads((folder / "result.json").read_text())["config"]["dataset"])
    assert main(["pack", "--checkpoint", str(tmp_path / "back.pt"), *flags, data]) == 0
    (again,) = (tmp_path / "again").iterdir()
    measured = json.loads((again / "result.json").read_text())["accuracy"]
    assert measured["before"] == measured["of the file"] == result["accuracy"]["of the file"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "pack needs --checkpoint"),
        (["--checkpoint", "no.pt"], "checkpoint = no.pt: there is no such file"),
        (["--checkpoint", "MODEL", "--sparsity", "1"], "sparsity = 1: should be at least 0 and less than 1"),
        (["--checkpoint", "MODEL", "--clusters", "300"], "clusters = 300: should be auto, or 1 to 256"),
        (["--checkpoint", "MODEL", "--tune", "-1"], "tune = -1: should be a number of passes"),
        (["--checkpoint", "MODEL", "--weight-bits", "4"], "was trained with few bits already (weight-bits = 4"),
    ],
)
def test_a_mistake_in_pack_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    given = [str(trained / "model.pt") if flag == "MODEL" else flag for flag in flags]
    assert main(["pack", *given, "--logdir", str(tmp_path)]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert line in shown


@pytest.mark.parametrize(
    ("content", "line"), [(b"", "is no packed model"), (b"fspk" + bytes(50), "has version 0"), (None, "cannot be read")]
)
def test_a_file_that_is_no_packed_model_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, line: str
) -> None:
    if content is not None:
        (tmp_path / "a.fspk").write_bytes(content)
    assert main(["unpack", str(tmp_path / "a.fspk")]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert line in shown
