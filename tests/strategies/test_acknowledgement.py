"""An update counts once, whether it is accepted, refused and sent again, or sent twice."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedsparse.clients.exchange import encode_update
from fedsparse.clients.workbench import Workbench
from fedsparse.compression.wire import binding
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.experiment import Experiment
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.server_app import make_strategy

CLIENT = 0


@pytest.fixture
def grid() -> Iterator[LocalGrid]:
    with LocalGrid("fedsparse.clients.client_app:app", clients=2) as grid:
        yield grid


def federation(grid: LocalGrid, dataset: str, folder: str, density: float) -> FedAvg:
    settings = {"clients": 2, "clients-per-round": 2, "compressor": "topk", "density": density, "values": "f32"}
    config = Config.from_mapping({**settings, "dataset": dataset, "model": "mlp-small"})
    strategy = make_strategy(Experiment(config), grid.get_node_ids(), grid)
    strategy.cohort.state_folder = folder
    return strategy


def messages_of(strategy: FedAvg, grid: LocalGrid, round: int) -> list[Message]:
    return list(strategy.configure_train(round, strategy.broadcast(round), ConfigRecord(), grid))


def sent(strategy: FedAvg, reply: Message, round: int, run: str = "") -> np.ndarray:
    bound = binding(run or strategy.cohort.model.gate.run, CLIENT)
    return strategy.model.topology.read(reply.content, round, bound)[0].to_dense()


def update_alone(message: Message) -> np.ndarray:
    """The update of a client without any state for this message."""
    whole = Config.from_mapping({**message.content["config"], "compressor": "none"})
    task = ConfigRecord({**message.content["task"], "state-folder": ""})
    records = {**message.content, "config": ConfigRecord(whole.flat()), "task": task}
    with LocalGrid("fedsparse.clients.client_app:app", clients=2) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict(records), message.metadata.dst_node_id, "train")])
    strategy = make_strategy(Experiment(whole), grid.get_node_ids(), grid)
    return sent(strategy, reply, task["round"], task["run"])


@pytest.mark.parametrize("store", ["context", "files"])
@pytest.mark.parametrize("refused", [True, False])
def test_a_refused_payload_is_part_of_the_clients_next_one(
    grid: LocalGrid, tiny_dataset: str, tmp_path: Path, refused: bool, store: str
) -> None:
    strategy = federation(grid, tiny_dataset, str(tmp_path) if store == "files" else "", density=1.0)
    replies = grid.send_and_receive(messages_of(strategy, grid, 1))
    first = sent(strategy, replies[CLIENT], 1)
    if refused:
        array = replies[CLIENT].content["arrays"]["update"]
        array.data = array.data[:-1] + bytes([array.data[-1] ^ 1])
    strategy.aggregate_train(1, replies)
    assert len(strategy.cohort.tally.failures) == refused
    messages = messages_of(strategy, grid, 2)
    second = sent(strategy, grid.send_and_receive(messages)[CLIENT], 2)
    expected = update_alone(messages[CLIENT]) + (first if refused else 0)
    assert np.abs(first).max() > 1e-3
    np.testing.assert_allclose(second, expected, rtol=1e-5, atol=1e-7)


def test_a_message_that_is_answered_twice_sends_the_update_once(
    grid: LocalGrid, tiny_dataset: str, tmp_path: Path
) -> None:
    """A SuperNode that loses contact with a ClientApp starts another one for the same message."""
    strategy = federation(grid, tiny_dataset, str(tmp_path), density=0.05)
    for round in (1, 2):
        messages = messages_of(strategy, grid, round)
        attempts = [grid.send_and_receive(messages) for _ in range(2)]
        first, second = (sent(strategy, replies[CLIENT], round) for replies in attempts)
        assert np.array_equal(first, second)
        strategy.aggregate_train(round, attempts[1])
        assert strategy.cohort.tally.metrics["comm/clients"] == 2


def test_a_resent_update_does_not_dilute_the_other_clients_measurements(
    grid: LocalGrid, tiny_dataset: str, tmp_path: Path
) -> None:
    strategy = federation(grid, tiny_dataset, str(tmp_path), density=0.05)
    messages = messages_of(strategy, grid, 1)
    first, second = (grid.send_and_receive(messages) for _ in range(2))
    strategy.aggregate_train(1, [second[CLIENT], first[1]])
    assert strategy.cohort.tally.metrics["comm/clients"] == 2
    measured = first[1].content["metrics"]
    tags = [tag for tag in measured if tag.startswith("compress/")]
    assert "compress/density" in tags
    assert {tag: strategy.cohort.tally.metrics[tag] for tag in tags} == {tag: measured[tag] for tag in tags}


def test_a_second_attempt_that_ends_in_another_topology_does_not_send_the_first_ones_payload(
    tiny_dataset: str, tmp_path: Path
) -> None:
    settings = {"clients": 2, "clients-per-round": 2, "compressor": "topk", "density": 0.1, "dataset": tiny_dataset}
    bench = Workbench(Config.from_mapping({**settings, "topology": "static", "sparsity": 0.5}))
    whole, layout = bench.under_bits(b""), bench.model.layout
    sparse = bench.under_bits(np.packbits(~whole.topology.prunable).tobytes())
    task = ConfigRecord({"round": 1, "accepted-round": 0, "run": "", "state-folder": str(tmp_path)})
    context = Context(1, CLIENT, {}, RecordDict(), {})
    encode_update(bench, context, task, torch.ones(layout.size), whole, whole.codec, CLIENT)
    with pytest.raises(ValueError, match="a second attempt at round 1 ended in another topology"):
        encode_update(bench, context, task, torch.ones(layout.size), sparse, sparse.codec, CLIENT)
