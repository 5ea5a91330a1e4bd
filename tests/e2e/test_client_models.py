"""A federation with networks of several sizes, as a user types it."""

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedsparse.commands import main
from tests.e2e.test_main import tiny

OWN = """
from torch import nn

def Net(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], UNITS), nn.Linear(UNITS, classes))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with two of the user's own networks, which have the same name, and one of ours."""
    folder = tmp_path_factory.mktemp("sizes")
    for name, units in (("small", 4), ("large", 16)):
        (folder / name).mkdir()
        (folder / name / "mine.py").write_text(OWN.replace("UNITS", str(units)))
    held = f"{folder}/small/mine.py:Net,{folder}/large/mine.py:Net:2,mlp-small"
    sizes = ["--clients", "10", "--clients-per-round", "5", "--rounds", "2", "--eval-every", "1", "--workers", "1"]
    ensemble = ["--distill", "ensemble", "--distill-samples", "40", "--distill-steps", "3"]
    places = ["--dataset", tiny(folder), "--logdir", str(folder / "runs")]
    assert main([*sizes, *ensemble, *places, "--client-models", held]) == 0
    (run,) = (folder / "runs").iterdir()
    return run


def test_each_network_has_its_scores_wherever_a_run_is_measured(finished: Path) -> None:
    result, tag = json.loads((finished / "result.json").read_text()), "models/{}/accuracy"
    last, networks = result["rounds"][-1], ["mine.Net", "mine.Net-1", "mlp-small"]
    rows = list(csv.DictReader((finished / "rounds.csv").open()))
    board = EventAccumulator(str(finished))
    board.Reload()
    for network in networks:
        score = last[tag.format(network)]
        assert result["summary"]["models"][network]["accuracy"] == score
        assert float(rows[-1][tag.format(network)]) == score
        assert board.Scalars(tag.format(network))[-1].value == pytest.approx(score)
    assert result["summary"]["accuracy"] == last["eval/accuracy"] == last["models/mine.Net/accuracy"]
    assert result["summary"]["uplink-ratio"] is None  # there is no one full model to compare with


@pytest.mark.parametrize("network", ["mine.Net-1", "mlp-small"])
def test_the_file_of_each_network_is_read_by_commands_without_a_flag(
    finished: Path, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((finished / "result.json").read_text())["summary"]
    file = finished / "models" / network / "model.pt"
    flags = ["--bits", "8", "--inputs", "off", "--float-layers", "", "--logdir", str(tmp_path)]
    assert main(["quantise", "--checkpoint", str(file), *flags]) == 0
    assert f"{summary['models'][network]['accuracy']:.2%}" in capsys.readouterr().out


def test_its_first_rounds_have_the_same_bits_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(finished)]) == 0
    assert "are the same, to the bit" in capsys.readouterr().out
