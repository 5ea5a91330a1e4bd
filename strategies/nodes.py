"""Finds out which node holds which partition: node ids are random in Flower, but partition ids make runs repeatable."""

import logging
import time
from collections.abc import Iterator, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.errors import RunFailed, one_line, reason

log = logging.getLogger("fedsparse")

SETTLED_SECONDS = 15.0
"""The server waits for further nodes until none has connected for this time."""
ANSWER_SECONDS = 30.0
"""How long a round waits for a new node to say which partition it holds."""


class FederationError(RunFailed):
    """The connected nodes are not the federation that the settings describe."""


def meet_federation(grid: Grid, config: Config) -> tuple[Config, Sequence[int]]:
    """The settings, with ``clients`` set to the number of nodes, and the node ids by partition id.

    Flower decides how many nodes there are; `flwr run .` starts two. When fewer than ``clients`` are connected and no
    more come, the federation consists of the connected ones.

    Raises:
        FederationError: a partition is missing, or two nodes hold it.
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
    held: dict[int, int] = {}
    silent = ""
    for node, answer in _ask_partitions(grid, nodes, config.round_timeout):
        if isinstance(answer, str):
            silent = f" (a node does not say its own: {answer})"
        elif answer in held:
            raise FederationError(
                f"nodes {held[answer]} and {node} both say that they hold partition {answer}; give each its own "
                "partition-id, or unregister the one that lies (flwr supernode unregister)"
            )
        else:
            held[answer] = node
    if missing := set(range(config.clients)) - set(held):
        last = config.clients - 1
        raise FederationError(f"no node holds partition {min(missing)}; partition ids are 0 to {last}{silent}")
    return config, [held[partition_id] for partition_id in range(config.clients)]


class Nodes:
    """Node ids by partition id, during a run: a SuperNode that is started again comes back under another node id."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self._met = set(ids)

    def update(self, grid: Grid) -> list[int]:
        """Ask new nodes which partition they hold; returns the clients that have moved to a new node.

        A new node replaces a node of the same partition that has left. The SuperLink lists a dead node for up to a
        minute; meanwhile every round asks the new node again. A node that did not answer is asked again, too.
        """
        if isinstance(grid, LocalGrid):
            return []
        present = set(grid.get_node_ids())
        strangers = sorted(present - self._met)
        if not strangers:
            return []
        moved, self.ids = [], list(self.ids)
        for node, answer in _ask_partitions(grid, strangers, ANSWER_SECONDS):
            holder = self.ids[answer] if isinstance(answer, int) and 0 <= answer < len(self.ids) else None
            if isinstance(answer, str) or holder in present:
                continue
            if holder is not None:
                log.warning("client %d is at another node now", answer)
                self.ids[answer] = node
                moved.append(answer)
            self._met.add(node)
        return moved


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


def _ask_partitions(grid: Grid, nodes: list[int], timeout: float) -> Iterator[tuple[int, int | str]]:
    """Each node that answers, with its partition id, or with the text of its error."""
    question = RecordDict({"config": ConfigRecord()})
    asked = [Message(question, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
    for reply in grid.send_and_receive(asked, timeout=timeout):
        node = reply.metadata.src_node_id
        if reply.has_error():
            yield node, reason(reply.error.reason or "")
        else:
            record = reply.content.get("node") if reply.has_content() else None
            answer = record.get("partition-id") if isinstance(record, ConfigRecord) else None
            is_number = isinstance(answer, int) and not isinstance(answer, bool)
            yield node, answer if is_number else one_line(f"its partition-id is {answer!r}")  # type: ignore[misc]
