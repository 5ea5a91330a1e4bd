"""Which node holds which partition. Flower's node ids are random; the partition ids make runs repeatable."""

import logging
import time
from collections.abc import Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsparse.config import Config
from fedsparse.engine import LocalGrid, RunFailed

log = logging.getLogger("fedsparse")

SETTLED_SECONDS = 15.0  # nodes that connect at all do so within this time of one another


class FederationError(RunFailed):
    """The connected nodes are not the federation that the settings describe; told in one line."""


def meet_federation(grid: Grid, config: Config) -> tuple[Config, Sequence[int]]:
    """The settings, with ``clients`` as many as there are nodes, and the node ids by partition id.

    Flower decides how many nodes there are, for `flwr run .` by hand two: when fewer than ``clients`` are connected and
    no more come, the federation is those.

    Raises:
        FederationError: partitions that are missing or held twice.
    """
    if isinstance(grid, LocalGrid):
        return config, grid.get_node_ids()
    nodes = _connected(grid, config.clients)
    if len(nodes) < config.clients:
        log.warning(
            "%d nodes are connected: clients = %d instead of %d (more with --federation-config num-supernodes=%d)",
            *(len(nodes), len(nodes), config.clients, config.clients),
        )
        config = config.replace(clients=len(nodes), clients_per_round=min(config.clients_per_round, len(nodes)))
    held = _held_partitions(grid, nodes, config.round_timeout)
    if missing := set(range(config.clients)) - set(held):
        raise FederationError(f"no node holds partition {min(missing)}; partition ids are 0 to {config.clients - 1}")
    return config, [held[partition_id] for partition_id in range(config.clients)]


def _connected(grid: Grid, wanted: int) -> list[int]:
    nodes: list[int] = []
    changed = time.monotonic()
    while len(nodes) < wanted and (not nodes or time.monotonic() - changed < SETTLED_SECONDS):
        now = sorted(grid.get_node_ids())
        if now != nodes:
            nodes, changed = now, time.monotonic()
        else:
            time.sleep(0.2)
    return nodes


def _held_partitions(grid: Grid, nodes: list[int], timeout: float) -> dict[int, int]:
    """Node id by partition id, asked of every node."""
    question = RecordDict({"config": ConfigRecord()})
    asked = [Message(question, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
    held: dict[int, int] = {}
    for reply in grid.send_and_receive(asked, timeout=timeout):
        if reply.has_error():
            raise FederationError(f"node {reply.metadata.src_node_id} cannot say its partition: {reply.error.reason}")
        partition_id = int(reply.content.config_records["node"]["partition-id"])  # type: ignore[arg-type]
        if partition_id in held:
            raise FederationError(f"two nodes hold partition {partition_id}; give each its own partition-id")
        held[partition_id] = reply.metadata.src_node_id
    return held
