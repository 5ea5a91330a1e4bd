"""Federations whose layers are of low rank."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.preflight import check
from fedsparse.vector import Layout
from tests.strategies.federation import play

DENSE = {"sparsity": 0.0, "compressor": "topk", "density": 0.3, "distribution": "iid", "clients-per-round": 6}


def layout(**settings: object) -> Layout:
    return Experiment(Config.from_mapping(settings)).layout


@pytest.mark.parametrize("form", ["svd", "fedpara"])
def test_a_federation_learns_with_factors_alone_and_sends_fewer_bytes_both_ways(tiny_dataset: str, form: str) -> None:
    settings = DENSE | {"lr": 0.05, "local-steps": 6, "batch-size": 16, "clients-per-round": 3}
    dense = play(tiny_dataset, 2, **settings)[-1]
    played = play(tiny_dataset, 4, **settings, lowrank_layers="full", lowrank_form=form, lowrank_rank=4)
    assert played[-1].metrics["train/loss"] < played[1].metrics["train/loss"]
    for way in ("comm/uplink_bytes", "comm/downlink_bytes"):
        assert played[2].metrics[way] < 0.5 * dense.metrics[way]


def test_selective_factors_only_layers_of_enough_weights() -> None:
    names = {
        least: {e.name for e in layout(lowrank_layers="selective", lowrank_min_size=least).trainable}
        for least in (4608, 4609)
    }
    assert {"3.s", "7.s"} < names[4608]
    assert {"3.weight", "7.s"} < names[4609]


def test_the_first_and_the_last_layer_stay_dense_unless_the_settings_say_otherwise() -> None:
    full = {e.name for e in layout(lowrank_layers="full").trainable}
    assert {"0.weight", "9.weight"} < full
    assert "9.s" in {e.name for e in layout(lowrank_layers="full", dense_layers="7").trainable}


def test_what_travels_is_compared_with_the_dense_network() -> None:
    experiment = Experiment(Config.from_mapping({"lowrank_layers": "full"}))
    assert experiment.dense_layout.parameters == layout().parameters > 3 * experiment.layout.parameters


def test_weights_of_a_dense_run_are_factored_and_those_of_a_factored_run_are_taken_as_they_are(tmp_path: Path) -> None:
    dense, factored = Experiment(Config()), Config.from_mapping({"lowrank_layers": "full", "lowrank_rank": 9})
    torch.save(dense.model.module.state_dict(), tmp_path / "dense.pt")
    first = Experiment(factored.replace(init=str(tmp_path / "dense.pt"), seed=1)).model
    u, s, vt = torch.linalg.svd(dense.model.module[7].weight.detach(), full_matrices=False)
    torch.testing.assert_close(first.module[7].weight, (u[:, :9] * s[:9]) @ vt[:9])
    torch.testing.assert_close(first.module[7].up.bias, dense.model.module[7].bias)
    torch.save(first.module.state_dict(), tmp_path / "factored.pt")
    second = Experiment(factored.replace(init=str(tmp_path / "factored.pt"))).model
    assert torch.equal(first.vector, second.vector)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_rank": 2},
        {"lowrank_layers": "dynamic"},
        {"lowrank_layers": "full", "lowrank_rank": 12},
        {"lowrank_layers": "selective", "lowrank_rank": 9},
    ],
    ids=str,
)
def test_a_run_may_begin_with_the_weights_of_one_whose_layers_have_other_ranks(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    switched = Experiment(Config.from_mapping({"lowrank_layers": "progressive"}), ranks=(9, 5)).model.module
    torch.save(switched.state_dict(), tmp_path / "model.pt")
    begun = Experiment(Config.from_mapping(settings | {"init": str(tmp_path / "model.pt"), "seed": 1})).model.module
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(begun(x), switched(x), rtol=1e-4, atol=1e-4)


def test_factors_can_be_sparse_too(tiny_dataset: str) -> None:
    played = play(tiny_dataset, 2, compressor="none", model="cnn-small", lowrank_layers="full", topology="rigl")
    assert 0.4 < played[-1].metrics["topology/density"] < 0.6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lowrank_rank": 9999}, "no layer of model = cnn-small becomes smaller"),
        ({"lowrank_layers": "selective", "lowrank_min_size": 10**8}, "there are lowrank-min-size = 100000000"),
        ({"dense_layers": "conv9"}, "no layer 'conv9'"),
        ({"sparsity": 0.5, "topology": "small-dense"}, "topology = small-dense"),
        ({"sparsity": 0.5, "lowrank_form": "fedpara"}, "choose svd"),
        ({"weight_bits": 4, "lowrank_form": "fedpara"}, "would stay float beside few bits"),
    ],
)
def test_what_cannot_be_is_one_line(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        check(Experiment(Config.from_mapping({"lowrank_layers": "full"} | settings)))
    assert "\n" not in str(error.value)
