"""The two lines in other people's apps: what travels, what the app and the strategy see."""

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, Result

from fedsparse.flower import CompressedStrategy, CompressMod
from tests.fedsparse.flower.federation import SIZE, Network, client_app, play


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


class Keeper(FedAvg):
    """A user's strategy with a `start` of its own, which looks at what its methods have noted."""

    rounds = 0

    def start(self, *positional: Any, **keywords: Any) -> Result:
        self.result = super().start(*positional, **keywords)
        assert self.rounds == keywords["num_rounds"]
        return self.result

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.rounds += 1
        return super().aggregate_train(server_round, replies)


def test_a_strategy_with_a_start_of_its_own_runs_it() -> None:
    strategy = CompressedStrategy(Keeper())
    result, _ = play(strategy, client_app(CompressMod("eden")))
    assert strategy.strategy.result is result
    assert strategy.rounds == 3
    assert 0 < strategy.uplink_bytes < strategy.downlink_bytes / 20


def test_a_second_start_goes_on_with_the_clients_states() -> None:
    """Its rounds begin at 1 again, which no client may take for a round that it has answered."""
    strategy, mod = CompressedStrategy(FedAvg(fraction_evaluate=0)), CompressMod("topk", density=0.02)
    first, grid = play(strategy, client_app(mod), rounds=1)
    middle = strategy.uplink_bytes
    second = strategy.start(grid, first.arrays, num_rounds=1)
    assert not np.array_equal(weights(first.arrays), weights(second.arrays))
    assert strategy.uplink_bytes > 1.5 * middle


def test_a_second_strategy_goes_on_with_the_clients_states() -> None:
    """As where a server makes a strategy for every stage of its training; each one's rounds begin at 1."""
    mod = CompressMod("topk", density=0.02, values="f32")
    one, two, three = (CompressedStrategy(FedAvg(fraction_evaluate=0)) for _ in range(3))
    first, grid = play(one, client_app(mod), rounds=1)
    second = two.start(grid, first.arrays, num_rounds=1)
    first, grid = play(three, client_app(mod), rounds=1)
    again = three.start(grid, first.arrays, num_rounds=1)
    assert np.array_equal(weights(second.arrays), weights(again.arrays))


def test_a_loop_of_the_users_own_calls_the_methods() -> None:
    strategy = CompressedStrategy(FedAvg())
    grid = Network(client_app(CompressMod("none", values="f32")), 4, list)
    arrays = ArrayRecord([np.zeros(SIZE, np.float32)])
    for round in (1, 2):
        messages = strategy.configure_train(round, arrays, ConfigRecord(), grid)
        arrays = strategy.aggregate_train(round, grid.send_and_receive(messages))[0]
    assert np.count_nonzero(weights(arrays)) == SIZE


def test_what_is_set_on_the_wrapper_is_set_on_the_strategy_and_its_summary_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "flwr")
    strategy = CompressedStrategy(FedAvg())
    strategy.fraction_evaluate = 0.25
    strategy.fraction_train, strategy.min_train_nodes = 0.5, 1
    assert strategy.strategy.fraction_train == strategy.fraction_train == 0.5
    _, grid = play(strategy, client_app(CompressMod("eden")), rounds=1)
    messages = strategy.configure_train(2, ArrayRecord([np.zeros(SIZE, np.float32)]), ConfigRecord(), grid)
    assert len(list(messages)) == 2
    caplog.clear()
    strategy.summary()
    assert "Fraction: train (0.50) | evaluate ( 0.25)" in caplog.text
    with pytest.raises(AttributeError):
        strategy.uplink_bytes = 0  # type: ignore[misc]


def test_a_run_removes_what_other_runs_left_in_the_state_folder_a_month_ago(tmp_path: Path) -> None:
    own = tmp_path / "2020-01"
    own.mkdir()
    (own / "me.jpg").touch()
    (tmp_path / "2020-02").touch()
    for days, run in ((29, 11), (31, 12), (31, 13)):
        mod = CompressMod("topk", density=0.02, state_folder=tmp_path)
        play(CompressedStrategy(FedAvg(), downlink="topk"), client_app(mod), rounds=1, nodes=2)
        for folder in tmp_path.glob("1-*"):
            then = time.time() - days * 86400
            os.utime(folder.rename(tmp_path / folder.name.replace("1-", f"{run}-", 1)), (then, then))
    for path in tmp_path.glob("2020-*"):
        os.utime(path, (0, 0))
    assert len(list(tmp_path.glob("1[123]-*"))) == 2 * 4  # of run 12, the third run has removed all
    play(CompressedStrategy(FedAvg()), client_app(mod), rounds=1, nodes=2)
    assert {folder.name.partition("-")[0] for folder in tmp_path.iterdir()} == {"1", "11", "2020"}
    assert (own / "me.jpg").exists()
