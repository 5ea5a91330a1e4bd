"""`--upload-pruning` as a user types it."""

import json
from pathlib import Path

import pytest
import torch

from fedsparse.commands import main
from tests.e2e.as_user import tiny

COMMON = ["--clients", "10", "--clients-per-round", "3", "--workers", "1", "--eval-every", "1"]


def run(tmp_path: Path, *flags: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The result and the saved weights."""
    arguments = [*COMMON, *flags, "--dataset", tiny(tmp_path), "--logdir", str(tmp_path / "runs")]
    assert main(arguments) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    return json.loads((folder / "result.json").read_text()), torch.load(folder / "model.pt", weights_only=True)


def test_the_global_model_is_as_sparse_as_the_uploads_and_both_ways_cost_less(tmp_path: Path) -> None:
    flags = ["--upload-pruning", "sparsegpt", "--upload-sparsity", "0.8", "--values", "f32", "--rounds", "3"]
    result, state = run(tmp_path, *flags)
    for name in ("3.weight", "7.weight"):
        assert int((state[name] != 0).sum()) <= round(0.2 * state[name].numel())
    assert bool((state["0.weight"] != 0).any(dim=(1, 2, 3)).all())
    total, pruned = sum(t.numel() for t in state.values()), sum(state[n].numel() for n in ("3.weight", "7.weight"))
    survivors = total - pruned + round(0.2 * pruned)
    rounds = result["rounds"][1:]
    for row in rounds:  # values of the survivors, a mask of at most a bit a weight, headers
        assert row["comm/uplink_bytes"] <= 3 * (4 * survivors + pruned / 8 + 500)
        assert row["time/prune"] > 0
    assert rounds[-1]["comm/downlink_bytes"] < 0.5 * rounds[0]["comm/downlink_bytes"]
    assert rounds[1]["topology/changed"] > 0  # because clients train every weight, new ones are elected


def test_two_of_four_holds_in_the_global_model(tmp_path: Path) -> None:
    _, state = run(tmp_path, "--upload-pruning", "magnitude", "--nm", "2:4", "--rounds", "2")
    groups = (state["7.weight"] != 0).unflatten(1, (-1, 4)).sum(-1)
    assert int(groups.max()) <= 2


@pytest.mark.parametrize("flags", [["--sparsity", "0.5"], ["--topology", "rigl", "--sparsity", "0.5"]])
def test_two_ways_to_choose_the_topology_are_a_mistake(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert main(["--upload-pruning", "magnitude", *flags]) == 2
    assert "upload-pruning = magnitude chooses the topology" in capsys.readouterr().err
