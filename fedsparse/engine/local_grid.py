"""LocalGrid: Flower's Grid as plain function calls, for the same ClientApp and ServerApp that run on Flower's runtime.

There is no Ray, no socket and no polling, and with one worker no serialisation. A client's Context is created when the
first message reaches the client, so that a federation costs what its cohorts cost. Node ids are the partition ids.
"""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import torch
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsparse.engine.apps import Apps
from fedsparse.engine.lanes import Lanes
from fedsparse.engine.pool import Pool
from fedsparse.plugins import absolute

SERVER_NODE_ID = -1  # partition ids start at 0


class LocalGrid(Grid):
    """Calls a ClientApp for every message, in this process or over a pool of workers.

    Args:
        client_app: a reference to the app: ``package.module:attribute``, as Flower writes it, or
            ``path/to/file.py:attribute``.
        clients: number of nodes; their ids are 0 to ``clients - 1``.
        together: a reference to a function that takes train messages and their Contexts, trains these clients at once,
            and returns an app that answers each message. It is called when ``group`` is above 1.
        workers: processes; with 1, and no ``client_timeout``, the clients run in this process.
        threads: torch threads of each worker.
        client_timeout: seconds after which a client fails and its worker is replaced; 0 for never.

    Attributes:
        in_process: whether clients run in this process.
        group: how many train messages one call of ``together`` gets. A group shares one worker, and is lost with it.

    Raises:
        PluginError: ``client_app`` or ``together`` cannot be loaded.
    """

    def __init__(
        self,
        client_app: str,
        clients: int,
        *,
        together: str = "",
        workers: int = 1,
        threads: int = 1,
        client_timeout: float = 0.0,
    ) -> None:
        # Message() takes the sender from this private class of Flower, which Flower's launcher sets on its runtime.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SERVER_NODE_ID
        self.clients = clients
        self._contexts: dict[int, Context] = {}
        self._settled: dict[int, RecordDict] = {}  # the states at the last `settle` of the clients called since
        self.in_process = workers == 1 and not client_timeout
        references = absolute(client_app), absolute(together) if together else ""
        self._apps = Apps(*references)  # here even with workers, so that a wrong reference raises at once
        self._pool = None if self.in_process else Pool(*references, workers, threads, client_timeout)
        self._lanes: Lanes | None = None
        self.group = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        if self._pool:
            self._pool.close()
        if self._lanes:
            self._lanes.close()

    def overlap(self, device: torch.device) -> None:
        """Train one client on ``device`` while the update of the client before it is encoded; in this process alone."""
        if self.in_process and not self._lanes:
            self._lanes = Lanes(device)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Deliver every message; returns the replies in the order of the messages.

        When a client raises, its reply is an error, as on Flower's runtime, and its Context stays as it was. After
        ``timeout`` seconds no further client starts, and the list lacks the missing replies.
        """
        batch = list(messages)
        for node in (message.metadata.dst_node_id for message in batch):
            self._settled.setdefault(node, self._context(node).state)  # which is replaced, and never changed
        deadline = time.monotonic() + timeout if timeout else None
        size = self.group if all(m.metadata.message_type == MessageType.TRAIN for m in batch) else 1
        groups = [batch[start : start + size] for start in range(0, len(batch), size)]
        if self._pool:
            return self._pool.run(groups, self._context, deadline)

        def answer(group: list[Message]) -> list[Message]:
            return [] if deadline and time.monotonic() > deadline else self._call(group)

        answers = self._lanes.map(answer, groups) if self._lanes else map(answer, groups)
        return [reply for replies in answers for reply in replies]

    def _call(self, group: list[Message]) -> list[Message]:
        contexts = [self._context(message.metadata.dst_node_id) for message in group]
        # The clients get copies of their Contexts, so that a failing client changes nothing. Only the dictionaries are
        # copied, not the records in them.
        attempts = [Context(**{**vars(c), "state": c.state.copy()}) for c in contexts]
        replies = self._apps.answer(group, attempts)
        for reply, attempt in zip(replies, attempts, strict=True):
            if not reply.has_error():
                self._contexts[attempt.node_id] = attempt
        return replies

    def _context(self, node_id: int) -> Context:
        if node_id not in self._contexts:
            if not 0 <= node_id < self.clients:
                raise ValueError(f"there is no node {node_id}: node ids are 0 to {self.clients - 1}")
            self._contexts[node_id] = Context(
                run_id=TaskIdentity.run_id,
                node_id=node_id,
                node_config={PARTITION_ID_KEY: node_id, NUM_PARTITIONS_KEY: self.clients},
                state=RecordDict(),
                run_config={},
            )
        return self._contexts[node_id]

    def settle(self) -> None:
        """Say that the round is whole: what ``state_of`` returns is the state of this moment, until the next call."""
        self._settled.clear()

    def state_of(self, node_id: int) -> RecordDict:
        """The state in the client's Context at the last ``settle``."""
        return self._settled.get(node_id, self._context(node_id).state)

    def restore(self, node_id: int, state: RecordDict) -> None:
        """Put a state of ``state_of`` into the client's Context."""
        self._context(node_id).state = state

    def get_node_ids(self) -> range:
        return range(self.clients)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError("LocalGrid has one run and no SuperLink")

    @property
    def run(self) -> Run:
        raise NotImplementedError("LocalGrid has no run record: it has no SuperLink")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError("LocalGrid answers at once: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError("LocalGrid answers at once: use send_and_receive")
