"""The mean of the products of low-rank layers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsparse.aggregation.products import ProductMean
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.lowrank.lora import LoRA
from fedsparse.lowrank.svd import LowRank
from fedsparse.vector import FlatModel


def with_adapter() -> nn.Module:
    layer = LoRA(nn.Linear(9, 8), 4, alpha=6.0)
    layer.base.requires_grad_(False)
    return layer


@pytest.mark.parametrize("make", [lambda: LowRank(nn.Linear(9, 8), 4), with_adapter], ids=["factors", "adapter"])
def test_the_result_is_the_best_layer_of_the_rank_for_the_weighted_mean_product(make: Any) -> None:
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(make(), nn.BatchNorm1d(8)))
    layer: Any = model.module[0]
    start = model.vector.clone()
    aggregator = ProductMean(model, start, torch.ones(model.layout.parameters, dtype=torch.bool))
    codec, expected, plain = UpdateCodec(model.layout, "none"), torch.zeros(8, 9), torch.zeros_like(start)
    for client, samples in enumerate((1, 3, 4)):
        update = 0.3 * torch.randn_like(start)
        model.vector.copy_(start + update)
        expected += layer.matrix.detach() * samples / 8
        plain += update * samples / 8
        payload, _ = codec.encode(update, ClientState(), round=1, seed=client)
        aggregator.add(codec.decode(payload), samples)
    result = aggregator.result()
    model.vector.copy_(start + result)
    torch.testing.assert_close(layer.matrix.detach(), best(expected, 4), rtol=1e-4, atol=1e-5)
    others = [e.slice for e in model.layout.entries if not e.name.startswith(("0.down", "0.up.weight", "0.s"))]
    for part in others:
        torch.testing.assert_close(result[part], plain[part], rtol=1e-4, atol=1e-5)
    model.vector.copy_(start + plain)
    assert (layer.matrix.detach() - expected).norm() > 1.5 * (best(expected, 4) - expected).norm()


def test_products_that_overflow_give_an_infinite_change_which_the_server_refuses() -> None:
    model = FlatModel(nn.Sequential(LowRank(nn.Linear(9, 8), 4)))
    aggregator = ProductMean(model, model.vector.clone(), torch.ones(model.layout.parameters, dtype=torch.bool))
    update = torch.full_like(model.vector, 1e20)
    payload, _ = UpdateCodec(model.layout, "none").encode(update, ClientState(), round=1, seed=0)
    aggregator.add(UpdateCodec(model.layout, "none").decode(payload), 1)
    assert aggregator.result().isinf().all()


def best(matrix: Tensor, rank: int) -> Tensor:
    u, s, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    return torch.from_numpy((u[:, :rank] * s[:rank]) @ vt[:rank])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"compressor": "topk"}, "error-feedback"),
        ({"values": "f16"}, "error-feedback"),
        ({"strategy": "fedadam"}, "strategy"),
        ({"server-lr": 0.5}, "server-lr"),
        ({"aggregator": "median"}, "aggregator"),
        ({"lowrank-form": "fedpara"}, "lowrank-form"),
        ({"keep-moments": True}, "keep-moments"),
        ({"downlink-compressor": "topk"}, "downlink-compressor"),
        ({"downlink-values": "f16"}, "downlink-compressor"),
        ({"weight-bits": 4, "weight-steps": "learned"}, "weight-steps"),
        ({"activation-bits": 8}, "activation-bits"),
        ({"sparsity": 0.5}, "topology"),
        ({"secure-aggregation": True}, "secure-aggregation"),
    ],
)
def test_what_outlives_a_round_in_the_factors_is_refused(settings: dict[str, Any], key: str) -> None:
    fitting = {"lowrank-layers": "full", "lowrank-average": "products", "compressor": "none"}
    assert Config.from_mapping(fitting)
    with pytest.raises(ConfigError, match=f"lowrank-average = products: {key} = "):
        Config.from_mapping(fitting | settings)
