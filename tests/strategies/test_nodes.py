"""Who holds which partition, on a grid that stands for Flower's."""

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from strategies.nodes import FederationError, Nodes, meet_federation

LocalGrid("clients.app:app", clients=1)  # so that Message() knows who speaks
SUPERLINK = 1


class Federation:
    """Nodes with the partitions that they hold; None for one that died a moment ago."""

    def __init__(self, partitions: dict[int, int | None]) -> None:
        self.partitions = partitions
        self.asked: list[int] = []

    def get_node_ids(self) -> list[int]:
        return list(self.partitions)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.asked.append(node)
            partition = self.partitions[node]
            content = RecordDict({"node": ConfigRecord({"partition-id": partition or 0})})
            answer = Error(1, "Error: Node Unavailable") if partition is None else content
            reply = Message(answer, reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK if partition is None else node
            replies.append(reply)
        return replies


def settings(clients: int) -> Config:
    return Config.from_mapping({"clients": clients, "clients-per-round": 1})


def test_nodes_are_ordered_by_the_partitions_that_they_hold() -> None:
    _, nodes = meet_federation(Federation({70: 2, 50: 0, 60: 1}), settings(3))
    assert nodes == [50, 60, 70]


def test_a_dead_node_does_not_matter_where_another_has_its_partition() -> None:
    _, nodes = meet_federation(Federation({50: 0, 51: None, 60: 1}), settings(2))
    assert nodes == [50, 60]


def test_a_partition_that_nobody_holds_is_told_with_the_reason() -> None:
    with pytest.raises(FederationError, match=r"no node holds partition 1; .* 0 to 1 \(.*Node Unavailable\)"):
        meet_federation(Federation({50: 0, 51: None}), settings(2))


def test_a_partition_that_two_hold_is_told() -> None:
    with pytest.raises(FederationError, match="two nodes hold partition 0"):
        meet_federation(Federation({50: 0, 51: 0}), settings(2))


def test_a_node_that_was_started_again_takes_its_place_and_is_asked_once() -> None:
    federation = Federation({50: 0, 60: 1})
    nodes = Nodes([50, 60], timeout=1.0)
    nodes.update(federation)
    assert federation.asked == []
    federation.partitions = {50: 0, 77: 1, 88: None, 99: 5}
    for _ in range(3):
        nodes.update(federation)
    assert list(nodes.ids) == [50, 77]
    assert federation.asked == [77, 88, 99]
