"""Which node holds which partition. Flower's node ids are random; the partition ids make runs repeatable."""

import logging
import time
from collections.abc import Iterator, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedsparse.config import Config
from fedsparse.engine import LocalGrid, RunFailed

log = logging.getLogger("fedsparse")

SETTLED_SECONDS = 15.0  # nodes that connect at all do so within this time of one another
ANSWER_SECONDS = 30.0  # a node that connects between rounds and does not answer holds up no more than this


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
    held: dict[int, int] = {}
    silent = ""
    for node, answer in _ask_partitions(grid, nodes, config.round_timeout):
        if isinstance(answer, str):
            silent = f" (a node does not say its own: {answer})"
        elif answer in held:
            raise FederationError(f"two nodes hold partition {answer}; give each its own partition-id")
        else:
            held[answer] = node
    if missing := set(range(config.clients)) - set(held):
        last = config.clients - 1
        raise FederationError(f"no node holds partition {min(missing)}; partition ids are 0 to {last}{silent}")
    return config, [held[partition_id] for partition_id in range(config.clients)]


class Nodes:
    """Node ids by partition id, through a run: a SuperNode that was started again comes back under another id."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self._met = set(ids)

    def update(self, grid: Grid) -> list[int]:
        """Ask nodes not met before which partition they hold; the clients that are at another, fresh node now.

        A node takes the place of one that has left. The SuperLink lists a dead node for up to a minute: whoever claims
        its partition until then is asked again in the next round, as is a node that did not answer.
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
    """Every node that answers, with its partition id, or with the reason why it does not tell."""
    question = RecordDict({"config": ConfigRecord()})
    asked = [Message(question, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
    for reply in grid.send_and_receive(asked, timeout=timeout):
        node = reply.metadata.src_node_id
        if reply.has_error():
            yield node, ((reply.error.reason or "").strip() or "no reason given").splitlines()[-1]
        else:
            yield node, int(reply.content.config_records["node"]["partition-id"])  # type: ignore[arg-type]
