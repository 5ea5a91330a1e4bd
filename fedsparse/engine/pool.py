"""A persistent pool of worker processes that answer messages for LocalGrid.

A worker that dies or hangs costs its own client's reply and nothing else: it is replaced, and the round goes on. The
Context lives with the parent and changes only when a reply has arrived whole, so a lost worker loses no update.
"""

import copy
import importlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode


def load_app(reference: str) -> Any:
    """The object that ``"package.module:attribute"`` names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Pool:
    """``workers`` processes, each with ``threads`` torch threads, that run the app ``client_app`` names."""

    def __init__(self, client_app: str, workers: int, threads: int) -> None:
        # A forked copy of a process with threads may hang, so workers are forked by a server that has none; it has
        # imported the app already, which makes replacing a worker quick.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([__name__, client_app.partition(":")[0]])
        self._arguments = (client_app, threads)
        self._workers = [_Worker(self._processes, *self._arguments) for _ in range(workers)]

    def run(
        self,
        messages: list[Message],
        context_of: Callable[[int], Context],
        deadline: float | None,
    ) -> list[Message]:
        """Replies in the order of ``messages``; missing are those that did not come before ``deadline``."""
        waiting, replies = deque(enumerate(messages)), dict[int, Message]()
        while waiting or any(w.job is not None for w in self._workers):
            for worker in self._workers:
                if worker.job is None and waiting:
                    index, message = waiting.popleft()
                    worker.start(index, message, context_of(message.metadata.dst_node_id))
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait([w.connection for w in self._workers if w.job is not None], left)
            if not ready:
                self._replace([w for w in self._workers if w.job is not None])
                break
            for worker in [w for w in self._workers if w.connection in ready]:
                job = worker.job
                assert job is not None
                try:
                    reply, state = worker.finish()
                except (EOFError, OSError):
                    replies[job] = Message(
                        Error(ErrorCode.CLIENT_APP_CRASHED, f"its worker process died ({worker.epitaph()})"),
                        reply_to=messages[job],
                    )
                    self._replace([worker])
                    continue
                replies[job] = reply
                if not reply.has_error():
                    context_of(messages[job].metadata.dst_node_id).state = state
        for worker in self._workers:
            worker.records.clear()
        return [replies[i] for i in sorted(replies)]

    def _replace(self, workers: list["_Worker"]) -> None:
        for worker in workers:
            worker.kill()
            self._workers[self._workers.index(worker)] = _Worker(self._processes, *self._arguments)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


class _Worker:
    """One process, the pipe to it, and the index of the message it works on."""

    def __init__(self, processes: Any, client_app: str, threads: int) -> None:
        self.connection, theirs = processes.Pipe()
        self.process = processes.Process(target=_serve, args=(theirs, client_app, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.job: int | None = None
        self.records: dict[int, ArrayRecord] = {}  # what the process holds already: the round's weights go there once

    def start(self, index: int, message: Message, context: Context) -> None:
        self.job = index
        content = dict(message.content)
        arrays = {key: record for key, record in content.items() if isinstance(record, ArrayRecord)}
        new = {id(r): r for r in arrays.values() if id(r) not in self.records}
        self.records |= new
        rest = RecordDict({key: record for key, record in content.items() if key not in arrays})
        keys = {key: id(record) for key, record in arrays.items()}
        with suppress(OSError):  # the process is gone: finish() says so
            self.connection.send((with_content(message, rest), keys, new, list(self.records), context))

    def finish(self) -> tuple[Message, RecordDict]:
        answered: tuple[Message, RecordDict] = self.connection.recv()
        self.job = None
        return answered

    def epitaph(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def with_content(message: Message, content: RecordDict) -> Message:
    """The same message around other records."""
    other = copy.copy(message)
    other.content = content
    return other


def _serve(connection: Connection, client_app: str, threads: int) -> None:
    """A worker's life: answer messages until the parent closes the pipe or dies."""
    from fedsparse.engine.local import answer

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    torch.set_num_threads(threads)
    app = load_app(client_app)
    records: dict[int, ArrayRecord] = {}
    while True:
        try:
            message, keys, new, held, context = connection.recv()
        except EOFError:
            return
        records = {key: record for key, record in (records | new).items() if key in held}
        content = RecordDict({**message.content, **{key: records[i] for key, i in keys.items()}})
        reply = answer(app, with_content(message, content), context)
        connection.send((reply, context.state))
