"""Federations whose layers become of low rank, or of a lower rank, while they train."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedsparse.commands.checks import checked
from fedsparse.commands.run import start
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.lowrank import dense_state, factor_, load_dense, rank_of_energy
from fedsparse.lowrank.svd import matrix_of
from fedsparse.models import build_model
from fedsparse.python_door import Result
from fedsparse.training.local_step import learning_rate
from tests.strategies.federation import TRAFFIC, play

DENSE = {"sparsity": 0.0, "distribution": "iid", "eval-clients": False}
SWITCH = DENSE | {"lowrank-layers": "progressive", "lowrank-switch-round": 2, "lowrank-rank": 4}
DYNAMIC = SWITCH | {"lowrank-layers": "dynamic", "lowrank-rank": 0.5, "lowrank-interval": 1}


def network(settings: dict[str, Any], weights: Tensor, *ranks: int) -> nn.Module:
    """The network of these settings and ranks, with these weights."""
    experiment = Experiment(Config.from_mapping({"dataset": "fashion-mnist-mini"} | settings), ranks)
    experiment.model.vector.copy_(weights)
    return experiment.model.module


def test_at_full_rank_a_network_computes_the_same_before_and_after_it_is_factored() -> None:
    dense, factored = (build_model("cnn-small", (1, 28, 28), 10, "batch", seed=0) for _ in range(2))
    factor_(factored, {"0": 3, "3": 48, "7": 32, "9": 10}, "svd", seed=1)
    load_dense(factored, dense_state(dense))
    x = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(factored(x), dense(x), rtol=1e-4, atol=1e-5)
    again = dense_state(factored)
    assert again.keys() == dense.state_dict().keys()
    torch.testing.assert_close(dict(again), dict(dense.state_dict()), rtol=1e-4, atol=1e-5)


def test_the_server_factors_its_weights_by_the_truncated_svd_after_the_round_of_the_switch(tiny_dataset: str) -> None:
    dense, switched = play(tiny_dataset, 2, **DENSE), play(tiny_dataset, 3, **SWITCH)
    assert torch.equal(dense[1].weights, switched[1].weights)
    before, after = network(DENSE, dense[2].weights), network(SWITCH, switched[2].weights, 4, 4)
    for name in ("3", "7"):
        weight = before.get_submodule(name).weight.detach()
        u, s, vt = torch.linalg.svd(matrix_of(weight), full_matrices=False)
        best = (u[:, :4] * s[:4]) @ vt[:4]
        torch.testing.assert_close(after.get_submodule(name).matrix, best, rtol=1e-3, atol=1e-5)
    assert torch.equal(before[9].weight, after[9].weight)
    bytes_down = [state.metrics["comm/downlink_bytes"] for state in switched[1:]]
    assert bytes_down[2] < 0.4 * bytes_down[1] == 0.4 * bytes_down[0]


@pytest.mark.parametrize(
    "memory",
    [
        {"compressor": "dgc"},
        {"downlink-compressor": "topk"},
        {"momentum": 0.9, "keep-moments": True, "strategy": "fedadam", "server-lr": 0.003},
    ],
    ids=str,
)
def test_what_was_kept_for_the_dense_network_is_dropped_and_training_goes_on(tiny_dataset: str, memory: dict) -> None:
    settings = SWITCH | {"compressor": "topk", "density": 0.3, "lr": 0.05, "local-steps": 6, "clients-per-round": 6}
    played = play(tiny_dataset, 5, **settings | memory)
    assert played[5].metrics["train/loss"] < played[1].metrics["train/loss"]
    assert all("comm/failures" not in state.metrics for state in played)


def test_dynamic_ranks_are_those_of_the_asked_energy_and_never_grow(tiny_dataset: str) -> None:
    dense = network(DENSE, play(tiny_dataset, 2, **DENSE)[2].weights)
    play(tiny_dataset, 4, **DYNAMIC, **{"lowrank-layer-energy": 0.6})
    told = [message.content["task"].get("ranks") for message, _ in TRAFFIC[::4]]
    assert told[:2] == [None, None]
    assert list(told[2]) == [rank_of_energy(dense[name].weight, 0.6, most=16)[0] for name in (3, 7)]
    assert all(1 <= new <= old for new, old in zip(told[3], told[2], strict=True))


def test_the_rank_of_an_energy_is_the_smallest_that_has_it() -> None:
    u, v = (torch.linalg.qr(torch.randn(n, 4)).Q for n in (9, 6))
    weight = u * torch.tensor([3.0, 2.0, 1.0, 1.0]) @ v.T  # energies 9, 4, 1, 1 of 15
    ranks = {share: rank_of_energy(weight, share, most=4)[0] for share in (0.01, 0.59, 0.61, 0.86, 0.88)}
    assert ranks == {0.01: 1, 0.59: 1, 0.61: 2, 0.86: 2, 0.88: 3}
    assert rank_of_energy(weight, 0.88, most=2) == (2, pytest.approx(2.0))


def test_what_one_truncation_has_lost_the_next_one_counts_as_lost() -> None:
    u, v = (torch.linalg.qr(torch.randn(n, 3)).Q for n in (9, 6))
    truncated = u * torch.tensor([3.0, 2.0, 1.0]) @ v.T  # 1 of 15 was lost
    assert rank_of_energy(truncated, 0.88, most=3, lost=1.0) == (3, pytest.approx(1.0, abs=1e-5))
    assert rank_of_energy(truncated, 0.88, most=3) == (2, pytest.approx(1.0, abs=1e-5))


def test_the_learning_rate_falls_after_the_switch() -> None:
    config = Config.from_mapping(SWITCH | {"lowrank-lr-factor": 0.5, "lr-schedule": "constant"})
    assert [learning_rate(config, round) for round in (1, 2, 3)] == [0.1, 0.1, 0.05]


def finished(dataset: str, logdir: Path, until: int | None = None, **settings: Any) -> Path:
    given = {"clients": 6, "clients-per-round": 4, "rounds": 4, "dataset": dataset, "logdir": str(logdir)}
    return start(checked(Given({**given, "workers": 1, "checkpoint-every": 1, **settings})), until)


@pytest.mark.parametrize("until", [1, 2])
def test_a_run_goes_on_with_the_same_bits_from_before_the_switch_and_after_it(
    tiny_dataset: str, tmp_path: Path, until: int
) -> None:
    settings = DYNAMIC | {"lowrank-layer-energy": 0.6}
    whole = finished(tiny_dataset, tmp_path / "whole", **settings)
    cut = finished(tiny_dataset, tmp_path / "cut", until, **settings)
    finished(tiny_dataset, tmp_path / "cut", resume=str(cut), **settings)
    hashes = [[row["weights/hash"] for row in Result(folder).rounds] for folder in (whole, cut)]
    assert hashes[0] == hashes[1]
    assert len(Result(cut).model()[7].s) <= 16


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lowrank-form": "fedpara"}, "only lowrank-form = svd can"),
        ({"rounds": 2}, "lowrank-switch-round = 2 should be less than rounds = 2"),
        ({"sparsity": 0.5}, "which topology does not follow"),
        ({"upload-pruning": "magnitude"}, "which topology does not follow"),
        ({"weight-bits": 4}, "which weight-bits does not follow"),
        ({"dp-noise": 1.0}, "which dp-noise does not follow"),
        ({"secure-aggregation": True, "compressor": "none"}, "which secure-aggregation does not follow"),
    ],
)
def test_what_cannot_follow_a_changing_network_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Config.from_mapping(SWITCH | settings)
