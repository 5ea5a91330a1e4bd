"""The partition of each node, on a grid that replaces Flower's."""

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.experiment import Experiment
from fedsparse.strategies.nodes import FederationError, Nodes, meet_federation
from fedsparse.strategies.server_app import make_strategy

LocalGrid("fedsparse.clients.client_app:app", clients=1)  # sets the sender that Message() needs
SUPERLINK = 1


class Federation:
    """Nodes with their partitions; None for a node that has just died."""

    def __init__(self, partitions: dict[int, int | None]) -> None:
        self.partitions = partitions
        self.asked: list[int] = []
        self.timeouts: list[float] = []

    def get_node_ids(self) -> list[int]:
        return list(self.partitions)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        replies = []
        self.timeouts.append(timeout)
        for message in messages:
            node = message.metadata.dst_node_id
            self.asked.append(node)
            partition = self.partitions[node]
            content = RecordDict({"node": ConfigRecord({"partition-id": partition or 0})})
            answer = Error(1, "Error: Node Unavailable\nan advice") if partition is None else content
            reply = Message(answer, reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK if partition is None else node
            replies.append(reply)
        return replies


class Deployment:
    """The project's own clients behind node ids that come and go."""

    def __init__(self, nodes: list[int]) -> None:
        self.nodes = nodes
        self.grid = LocalGrid("fedsparse.clients.client_app:app", clients=10)

    def start(self, node: int, partition: int) -> int:
        self.grid._contexts[node] = Context(1, node, {"partition-id": partition}, RecordDict(), {})
        return node

    def get_node_ids(self) -> list[int]:
        return self.nodes

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.grid.send_and_receive(messages, timeout=timeout)


def settings(clients: int) -> Config:
    return Config.from_mapping({"clients": clients, "clients-per-round": 1})


def test_nodes_are_ordered_by_the_partitions_that_they_hold() -> None:
    _, nodes = meet_federation(Federation({70: 2, 50: 0, 60: 1}), settings(3))
    assert nodes == [50, 60, 70]


def test_a_dead_node_does_not_matter_when_another_node_has_its_partition() -> None:
    _, nodes = meet_federation(Federation({50: 0, 51: None, 60: 1}), settings(2))
    assert nodes == [50, 60]


def test_a_partition_that_no_node_holds_is_an_error_with_the_reason() -> None:
    with pytest.raises(FederationError, match=r"no node holds partition 1; .* 0 to 1 \(.*Node Unavailable\)"):
        meet_federation(Federation({50: 0, 51: None}), settings(2))


def test_a_partition_that_two_nodes_claim_is_an_error_that_names_both_and_what_to_do() -> None:
    with pytest.raises(FederationError, match=r"nodes 50 and 51 both .* partition 0; .*supernode unregister"):
        meet_federation(Federation({50: 0, 51: 0}), settings(2))


def test_a_node_that_was_started_again_takes_its_place_and_is_asked_once() -> None:
    federation = Federation({50: 0, 60: 1})
    nodes = Nodes([50, 60])
    assert nodes.update(federation) == []
    assert federation.asked == []
    federation.partitions = {50: 0, 77: 1, 99: 5}
    assert [nodes.update(federation) for _ in range(3)] == [[1], [], []]
    assert list(nodes.ids) == [50, 77]
    assert federation.asked == [77, 99]


def test_a_node_that_did_not_answer_is_asked_again() -> None:
    federation = Federation({50: 0, 77: None})
    nodes = Nodes([50, 60])
    assert nodes.update(federation) == []
    federation.partitions[77] = 1
    assert nodes.update(federation) == [1]
    assert list(nodes.ids) == [50, 77]


def test_a_node_takes_over_a_partition_only_after_the_old_node_has_left() -> None:
    federation = Federation({50: 0, 60: 1, 77: 1})
    nodes = Nodes([50, 60])
    assert nodes.update(federation) == []
    assert list(nodes.ids) == [50, 60]
    del federation.partitions[60]
    assert nodes.update(federation) == [1]
    assert list(nodes.ids) == [50, 77]


def test_only_one_of_two_new_nodes_takes_over_a_partition() -> None:
    federation = Federation({50: 0, 77: 1, 88: 1})
    nodes = Nodes([50, 60])
    assert nodes.update(federation) == [1]
    assert list(nodes.ids) == [50, 77]


@pytest.mark.parametrize("answer", ["x", [1, 2], float("inf"), True, 7.0, "\x1b[31m" * 10**5, None])
def test_an_answer_that_is_no_partition_id_is_one_short_line_and_ends_no_run(answer: object) -> None:
    class Strange(Federation):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
            replies = super().send_and_receive(messages, timeout=timeout)
            for reply in replies:
                if reply.metadata.src_node_id == 77:
                    reply.content.pop("node")
                    if answer is not None:
                        reply.content["node"] = ConfigRecord({"partition-id": answer})
            return replies

    assert Nodes([50, 60]).update(Strange({50: 0, 60: 1, 77: 1})) == []
    with pytest.raises(FederationError, match=r"no node holds partition 1; .*its partition-id is ") as raised:
        meet_federation(Strange({50: 0, 77: 1}), settings(2))
    assert len(str(raised.value)) < 1500
    assert str(raised.value).isprintable()


def test_a_silent_node_delays_a_round_by_at_most_half_a_minute() -> None:
    federation = Federation({50: 0, 77: None})
    Nodes([50, 60]).update(federation)
    assert federation.timeouts == [30.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"topology": "static", "sparsity": 0.5},
        {"downlink-compressor": "topk", "downlink-density": 0.01},
        {"topology": "static", "sparsity": 0.5, "downlink-compressor": "topk", "downlink-density": 0.01},
    ],
)
def test_a_client_on_a_new_node_loses_no_turn(tiny_dataset: str, settings: dict[str, object]) -> None:
    sizes = {"clients": 2, "clients-per-round": 2, "rounds": 4, "distribution": "iid", "dataset": tiny_dataset}
    config = Config.from_mapping(sizes | settings)
    deployment = Deployment([0, 1])
    strategy = make_strategy(Experiment(config), [0, 1], deployment)
    arrays = strategy.broadcast(1)
    for round in (1, 2, 3, 4):
        if round == 3:
            deployment.nodes = [0, deployment.start(9, partition=1)]
        messages = list(strategy.configure_train(round, arrays, ConfigRecord(), deployment))
        assert [message.metadata.dst_node_id for message in messages] == deployment.nodes
        arrays, _ = strategy.aggregate_train(round, deployment.send_and_receive(messages))
        assert strategy.cohort.tally.failures == []
