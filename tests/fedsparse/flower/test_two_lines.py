"""The two lines in other people's apps: what travels, what the app and the strategy see."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg

from fedsparse.flower import CompressedStrategy, CompressMod
from tests.fedsparse.flower.federation import SIZE, client_app, play


def weights(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([array.numpy().reshape(-1) for array in arrays.values()])


@pytest.mark.parametrize("strategy", [FedAvg, FedAdam])
def test_an_exact_compressor_gives_the_weights_of_the_plain_app(strategy: type[FedAvg]) -> None:
    plain, _ = play(strategy(), client_app())
    small, _ = play(CompressedStrategy(strategy()), client_app(CompressMod("none", values="f32")))
    np.testing.assert_allclose(weights(small.arrays), weights(plain.arrays), atol=1e-7)
    assert small.arrays["w"].dtype == "float32"


def test_the_uplink_is_a_few_percent_and_its_bytes_are_attributes_and_metrics() -> None:
    strategy = CompressedStrategy(FedAvg())
    result, _ = play(strategy, client_app(CompressMod("topk", density=0.02)))
    metrics = result.train_metrics_clientapp
    assert metrics[1]["loss"] == 1.0
    assert 3 * 4 * 60 < strategy.uplink_bytes < 3 * 4 * 4 * SIZE / 10
    assert strategy.uplink_bytes == sum(m["comm/uplink_bytes"] for m in metrics.values())
    evaluated = result.evaluate_metrics_clientapp.values()
    both = sum(m["comm/downlink_bytes"] for m in (*metrics.values(), *evaluated))
    assert strategy.downlink_bytes == both >= 2 * 3 * 4 * 4 * SIZE


def test_the_app_sees_the_message_that_a_plain_server_sends() -> None:
    seen, plain = list[RecordDict](), list[RecordDict]()
    play(FedAvg(), client_app(seen=plain), rounds=1)
    play(CompressedStrategy(FedAvg()), client_app(CompressMod("eden"), seen=seen), rounds=1)
    assert [list(content) for content in seen] == [list(content) for content in plain]
    assert len({id(content) for content in seen}) == len(seen)
