"""Which node holds which partition. Flower's node ids are random; the partition ids make runs repeatable."""

import time
from collections.abc import Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsparse.engine import LocalGrid, RunFailed


class FederationError(RunFailed):
    """The connected nodes are not the federation that the settings describe; told in one line."""


def nodes_by_partition(grid: Grid, clients: int, timeout: float) -> Sequence[int]:
    """Node ids in the order of their partition ids 0 to ``clients - 1``; waits until that many nodes are connected.

    Raises:
        FederationError: too few nodes within ``timeout`` seconds, or partitions that are missing or held twice.
    """
    if isinstance(grid, LocalGrid):
        return grid.get_node_ids()
    deadline = time.monotonic() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < clients:
        if time.monotonic() > deadline:
            raise FederationError(f"{len(nodes)} nodes connected within {timeout:g} s, but clients = {clients}")
        time.sleep(0.5)
    question = RecordDict({"config": ConfigRecord()})
    replies = grid.send_and_receive(
        [Message(question, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes], timeout=timeout
    )
    held: dict[int, int] = {}
    for reply in replies:
        if reply.has_error():
            raise FederationError(f"node {reply.metadata.src_node_id} cannot say its partition: {reply.error.reason}")
        partition_id = int(reply.content.config_records["node"]["partition-id"])  # type: ignore[arg-type]
        if partition_id in held:
            raise FederationError(f"two nodes hold partition {partition_id}; give each its own partition-id")
        held[partition_id] = reply.metadata.src_node_id
    if missing := set(range(clients)) - set(held):
        raise FederationError(f"no node holds partition {min(missing)}; partition ids are 0 to {clients - 1}")
    return [held[partition_id] for partition_id in range(clients)]
