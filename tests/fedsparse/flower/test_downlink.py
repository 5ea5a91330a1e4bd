"""CompressedStrategy's downlink: every client of a round sees the same arrays, whatever it missed before."""

import random

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg

from fedsparse.errors import ConfigError
from fedsparse.flower import CompressedStrategy, CompressMod
from tests.fedsparse.flower.federation import client_app, play

SIZE = 2000
START = {
    "w": np.linspace(-1, 1, SIZE).astype(np.float32),
    "steps": np.zeros((), np.int64),
    "half": np.ones((10, 5), np.float16),
    "running_var": np.ones(20, np.float32),
    "double": np.ones(30),
}


class Seen(CompressMod):
    """A CompressMod that notes what the app sees, by type and round, and sometimes fails."""

    def __init__(self, compressor: str = "topk", failing: float = 0.0, **settings: object) -> None:
        super().__init__(compressor, **settings)  # type: ignore[arg-type]
        self.seen: dict[tuple[str, int], list[RecordDict]] = {}
        self.failing, self.chance = failing, random.Random(3)

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        def noted(message: Message, context: Context) -> Message:
            key = message.metadata.message_type, int(message.content["config"]["server-round"])
            self.seen.setdefault(key, []).append(message.content)
            if self.chance.random() < self.failing:
                raise RuntimeError("a client's own fault")
            return call_next(message, context)

        return super().__call__(message, context, noted)


def bits(content: RecordDict) -> list[tuple[str, str, bytes]]:
    return [(name, array.dtype, array.numpy().tobytes()) for name, array in content["arrays"].items()]


@pytest.mark.parametrize("store", ["context", "files"])
@pytest.mark.parametrize("downlink", ["topk", "qsgd"])
def test_clients_that_missed_rounds_lost_replies_or_failed_see_what_the_others_see(
    downlink: str, store: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance = random.Random(1)
    mod = Seen(failing=0.15, density=0.05, state_folder=tmp_path_factory.mktemp("s") if store == "files" else None)
    strategy = CompressedStrategy(FedAvg(fraction_train=0.4, fraction_evaluate=0.3), downlink=downlink)

    def lossy(replies: list[Message]) -> list[Message]:
        return [reply for reply in replies if chance.random() < 0.85]

    play(strategy, client_app(mod), START, rounds=12, nodes=10, between=lossy)
    assert len(mod.seen) == 24
    for contents in mod.seen.values():
        assert all(bits(content) == bits(contents[0]) for content in contents)
        assert [(name, dtype) for name, dtype, _ in bits(contents[0])] == [(k, str(a.dtype)) for k, a in START.items()]


def test_a_change_costs_a_few_percent_of_the_arrays() -> None:
    strategy = CompressedStrategy(FedAvg(fraction_evaluate=0), downlink="topk", downlink_density=0.02)
    result, _ = play(strategy, client_app(CompressMod("eden")), {"w": np.zeros(SIZE, np.float32)})
    sent = [metrics["comm/downlink_bytes"] for metrics in result.train_metrics_clientapp.values()]
    assert sent[0] > 4 * 4 * SIZE
    assert sent[1] == sent[2] < sent[0] / 20


def test_what_a_change_leaves_out_comes_with_the_next_ones() -> None:
    """Clients that change nothing see the first difference shrink to nothing, and the server keeps its exact arrays."""
    mod = Seen("none")
    still = client_app(mod, train=lambda arrays, node, round: arrays if round > 1 else {"w": arrays["w"] + 1})
    strategy = CompressedStrategy(FedAvg(fraction_evaluate=0), downlink="topk", downlink_density=0.3)
    result, _ = play(strategy, still, {"w": np.zeros(SIZE, np.float32)}, rounds=9)
    seen = [mod.seen["train", round][0]["arrays"]["w"].numpy() for round in range(1, 10)]
    assert [np.count_nonzero(weights) for weights in seen[:6]] == [0, 600, 1200, 1800, 2000, 2000]
    assert np.abs(seen[-1] - result.arrays["w"].numpy()).max() < 1e-6
    assert np.abs(result.arrays["w"].numpy() - 1).max() < 1e-6


def test_a_strategy_with_other_arrays_for_each_client_sends_them_whole() -> None:
    class Personal(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
            messages = list(super().configure_train(server_round, arrays, config, grid))
            for message in messages:
                message.content = message.content.copy()
                message.content["arrays"] = arrays.copy()
            return messages

    strategy = CompressedStrategy(Personal(fraction_evaluate=0), downlink="topk")
    result, _ = play(strategy, client_app(CompressMod("none", values="f32")), {"w": np.zeros(SIZE, np.float32)})
    sent = [metrics["comm/downlink_bytes"] for metrics in result.train_metrics_clientapp.values()]
    assert min(sent) > 4 * 4 * SIZE


def test_a_wrong_downlink_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^downlink-compressor = topq: did you mean topk"):
        CompressedStrategy(FedAvg(), downlink="topq")
    with pytest.raises(ConfigError, match=r"^downlink-density = 0\.1 has no effect"):
        CompressedStrategy(FedAvg(), downlink_density=0.1)


def test_arrays_without_a_number_travel_as_they_are() -> None:
    start = {"w": np.zeros((0, 3), np.float32), "n": np.zeros(3, np.int64)}
    strategy = CompressedStrategy(FedAvg(), downlink="topk")
    result, _ = play(strategy, client_app(CompressMod("topk")), start)
    assert result.arrays["w"].numpy().shape == (0, 3)
    assert (result.arrays["n"].numpy() == 3).all()
