"""LocalGrid: Flower's Grid as plain function calls, for the same ClientApp and ServerApp that run on Flower's runtime.

There is no Ray, no socket and no polling, and with one worker no serialisation. A client's Context is created when the
first message reaches the client, so that a federation costs what its cohorts cost. Node ids are the partition ids.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Self

import torch
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsparse.engine.apps import Apps, load_apps
from fedsparse.engine.lanes import Lanes
from fedsparse.engine.pool import Pool
from fedsparse.plugins import absolute

SERVER_NODE_ID = -1  # partition ids start at 0


class LocalGrid(Grid):
    """Calls a ClientApp for every message, in this process or over a pool of workers.

    Args:
        client_app: a reference to the app: ``package.module:attribute``, as Flower writes it, or
            ``path/to/file.py:attribute``; or a function that loads the app, which is called once in every process.
        clients: number of nodes; their ids are 0 to ``clients - 1``.
        together: a reference to a function that takes train messages and their Contexts, trains these clients at once,
            and returns an app that answers each message. It is called when ``group`` is above 1.
        workers: processes; with 1, and no ``client_timeout``, the clients run in this process.
        threads: torch threads of each worker.
        client_timeout: seconds after which a client fails and its worker is replaced; 0 for never.
        own_gpu: whether a worker sees only its own GPU, so that "cuda:0" means that GPU.
        run_config: what every client's Context has as its ``run_config``.

    Attributes:
        in_process: whether clients run in this process.
        group: how many train messages one call of ``together`` gets. A group shares one worker, and is lost with it.

    Raises:
        PluginError: ``client_app`` or ``together`` cannot be loaded.
    """

    def __init__(
        self,
        client_app: str | Callable[[], Apps],
        clients: int,
        *,
        together: str = "",
        workers: int = 1,
        threads: int = 1,
        client_timeout: float = 0.0,
        own_gpu: bool = False,
        run_config: Mapping[str, UserConfigValue] | None = None,
    ) -> None:
        # Message() takes the sender from this private class of Flower, which Flower's launcher sets on its runtime.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SERVER_NODE_ID
        self.clients, self.run_config = clients, dict(run_config or {})
        self._run = Run.create_empty(TaskIdentity.run_id)
        self._sent = Counter[int]()  # node id -> how many messages it was sent
        self._pushed: dict[str, Message] = {}  # those that wait for ``pull_messages``, by id
        # Flower's older strategies send every message from a thread of its own.
        self._turn, self._numbering = threading.Lock(), threading.Lock()
        self._waiting: list[Message] = []  # which threads have sent that wait for their turn
        self._replies: dict[str, Message] = {}  # to messages of other threads, by id
        self._contexts: dict[int, Context] = {}
        self._settled: dict[int, RecordDict] = {}  # the states at the last `settle` of the clients called since
        self.in_process = workers == 1 and not client_timeout
        preloaded = []
        if isinstance(client_app, str):
            reference = absolute(client_app)
            preloaded = [] if ".py:" in reference else [reference.rpartition(":")[0]]
            client_app = partial(load_apps, reference, absolute(together) if together else "")
        self._apps = client_app()  # here even with workers, so that a wrong reference raises at once
        self._pool = None if self.in_process else Pool(client_app, preloaded, workers, threads, client_timeout, own_gpu)
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
        batch = self._numbered(messages)
        if timeout is not None:
            with self._turn:
                return self.deliver(batch, timeout)
        with self._numbering:
            self._waiting += batch
        with self._turn:  # whoever has it delivers what all threads have asked for meanwhile
            with self._numbering:
                together, self._waiting = self._waiting, []
            replies = self.deliver(together, None) if together else []
            self._replies |= {reply.metadata.reply_to_message_id: reply for reply in replies}
            ids = [message.metadata.message_id for message in batch]
            return [self._replies.pop(name) for name in ids if name in self._replies]

    def deliver(self, batch: list[Message], timeout: float | None) -> list[Message]:
        """Call the clients of a batch of messages that have their ids; one batch at a time."""
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
                run_config=dict(self.run_config),
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
        """Give the messages and Contexts of the run its id; before the first message."""
        self._run, TaskIdentity.run_id = run, run.run_id

    @property
    def run(self) -> Run:
        return self._run

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages; their clients are called when their replies are pulled."""
        pushed = {message.metadata.message_id: message for message in self._numbered(messages)}
        self._pushed |= pushed
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to pushed messages, in the order in which these were pushed; to each message once."""
        with self._turn:
            wanted = set(message_ids)
            batch = [self._pushed.pop(pushed) for pushed in list(self._pushed) if pushed in wanted]
            return self.deliver(batch, None) if batch else []

    def _numbered(self, messages: Iterable[Message]) -> list[Message]:
        """The messages, each with an id, as Flower's own grids give one: ``<node id>.<number of messages to it>``."""
        batch = list(messages)
        with self._numbering:
            for metadata in (message.metadata for message in batch):
                self._sent[metadata.dst_node_id] += 1
                vars(metadata)["_message_id"] = f"{metadata.dst_node_id}.{self._sent[metadata.dst_node_id]}"
        return batch
