"""Clients of several depths in one federation."""

import numpy as np
import pytest
import torch

from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.preflight import check
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.depths import part_of
from tests.strategies.federation import TRAFFIC, binding_of, play

SETTINGS = {"exits": 2, "depths": "uniform:1:3", "sparsity": 0, "compressor": "none", "eval-clients": False}


def test_a_weight_is_averaged_over_the_clients_that_train_it_and_nothing_else_travels(tiny_dataset: str) -> None:
    before, after = play(tiny_dataset, rounds=1, **SETTINGS)
    experiment = Experiment(
        Config.from_mapping({"dataset": tiny_dataset, "clients": 6, "clients-per-round": 4} | SETTINGS)
    )
    layout, cohort = experiment.layout, [message.metadata.dst_node_id for message, _ in TRAFFIC]
    depths = [experiment.depth(client) for client in cohort]
    assert len(set(depths)) > 1, "the test needs clients of several depths"
    total, held = np.zeros(layout.size), np.zeros(layout.size)
    for (message, reply), depth in zip(TRAFFIC, depths, strict=True):
        part, samples = part_of(layout, depth), reply.content["metrics"]["num-examples"]
        assert set(reply.content["arrays"]) == {"update"}
        data = reply.content["arrays"]["update"].data
        own = layout if depth == 3 else Compact(layout, part).layout
        assert len(data) < 4 * own.size + 200
        update = decode(data, own, binding_of(message)).to_dense()
        total[part.mask] += samples * update
        held[part.mask] += samples
    mean = np.divide(total, held, out=np.zeros_like(total), where=held > 0)
    torch.testing.assert_close(after.weights - before.weights, torch.from_numpy(mean).float(), rtol=1e-3, atol=1e-6)


def test_layers_that_no_client_of_a_cohort_trains_keep_their_bits(tiny_dataset: str) -> None:
    before, *_, last = play(tiny_dataset, rounds=2, **SETTINGS | {"depths": "1", "compressor": "topk"})
    experiment = Experiment(Config.from_mapping({"dataset": tiny_dataset} | SETTINGS))
    trained = part_of(experiment.layout, 1).mask
    assert torch.equal(last.weights[~trained], before.weights[~trained])
    assert (last.weights[trained] != before.weights[trained]).any()


def test_running_statistics_are_refused_in_one_line(tiny_dataset: str) -> None:
    settings = {"dataset": tiny_dataset, "model": "vgg11", "exits": 1, "depths": "1", "clients": 10}
    with pytest.raises(ConfigError, match=r"^depths = 1: running statistics .* use --norm group$"):
        check(Experiment(Config.from_mapping(settings)))
    check(Experiment(Config.from_mapping(settings | {"norm": "group"})))
