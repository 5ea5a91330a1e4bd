"""`main.py quantise` as a user types it."""

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
    arguments = ["train-central", "--dataset", tiny(folder), "--clients", "10", "--rounds", "3", "--epochs", "5"]
    assert main([*arguments, "--batch-size", "8", "--name", "taught", "--logdir", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.mark.parametrize(("bits", "times", "loss"), [("8", 3.8, 0.03), ("4", 7.0, 0.1)])
def test_a_checkpoint_is_quantised_with_little_loss_and_saved(
    trained: Path, tmp_path: Path, bits: str, times: float, loss: float
) -> None:
    flags = ["--bits", bits, "--samples", "100", "--logdir", str(tmp_path)]
    assert main(["quantise", "--checkpoint", str(trained / "model.pt"), *flags]) == 0
    (folder,) = tmp_path.iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["float-bytes"] / result["bytes"] > times
    assert abs(result["accuracy"]["after"] - result["accuracy"]["before"]) <= loss
    state, float_state = (torch.load(run / "model.pt", weights_only=True) for run in (folder, trained))
    assert all(len(row.unique()) <= 2 ** int(bits) for row in state["3.weight"].flatten(1))
    assert torch.equal(state["0.weight"], float_state["0.weight"])
    low, high = state["3.of_inputs.range"]
    assert low == 0 < high  # what a rectifier gives


@pytest.mark.parametrize(("flags", "name"), [([], "quantise-2"), (["--name", "few"], "few")])
def test_the_folder_has_the_name_that_is_given_and_not_that_of_the_run(
    trained: Path, tmp_path: Path, flags: list[str], name: str
) -> None:
    flags = [*flags, "--bits", "2", "--inputs", "off", "--logdir", str(tmp_path)]
    assert main(["quantise", "--checkpoint", str(trained / "model.pt"), *flags]) == 0
    (folder,) = tmp_path.iterdir()
    assert folder.name.split("-", 2)[2] == name


def test_the_observed_range_is_the_mean_over_the_batches() -> None:
    from fedsparse.commands.quantise import observe
    from fedsparse.quantisation import few_bits

    module = torch.nn.Sequential(torch.nn.Linear(3, 3))
    few_bits(module, 8, 8)
    batches = [torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    observe(module, batches)
    means = [sum(float(getattr(b, name)()) for b in batches) / 3 for name in ("min", "max")]
    assert module.state_dict()["0.of_inputs.range"].tolist() == pytest.approx(means)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "quantise needs --checkpoint"),
        (["--checkpoint", "no.pt"], "checkpoint = no.pt: there is no such file"),
        (["--checkpoint", "."], "checkpoint = .: is a folder; give a file in it, such as model.pt"),
        (["--checkpoint", "MODEL", "--bits", "3"], "bits = 3: should be one of 8, 4, 2, 1"),
        (["--checkpoint", "MODEL", "--inputs", "1"], "inputs = 1: should be one of off, 8, 4, 2"),
        (["--checkpoint", "MODEL", "--samples", "0"], "samples = 0: should be at least 1"),
        (["--checkpoint", "MODEL", "--weight-bits", "4"], "was trained with few bits already (weight-bits = 4"),
    ],
)
def test_a_mistake_in_quantise_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    given = [str(trained / "model.pt") if flag == "MODEL" else flag for flag in flags]
    assert main(["quantise", *given, "--logdir", str(tmp_path)]) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert line in shown
