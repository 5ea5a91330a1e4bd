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
from functools import partial
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
    """``workers`` processes, each with ``threads`` torch threads, that run the app ``client_app`` names.

    ``client_timeout`` is the most seconds one client may take; 0 for no limit.
    """

    def __init__(self, client_app: str, workers: int, threads: int, client_timeout: float) -> None:
        # A forked copy of a process with threads may hang, so workers are forked by a server that has none; it has
        # imported the app already, which makes replacing a worker quick.
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload([__name__, client_app.partition(":")[0]])
        self._new_worker = partial(_Worker, processes, client_app, threads, client_timeout)
        self._workers = [self._new_worker() for _ in range(workers)]

    def run(
        self, messages: list[Message], context_of: Callable[[int], Context], deadline: float | None
    ) -> list[Message]:
        """Replies in the order of ``messages``; missing are those that did not come before ``deadline``."""
        waiting, replies = deque(enumerate(messages)), dict[int, Message]()
        while deadline is None or time.monotonic() < deadline:
            for worker in self._workers:
                if worker.job is None and waiting:
                    index, message = waiting.popleft()
                    worker.start(index, message, context_of(message.metadata.dst_node_id))
            busy = {worker.job: worker for worker in self._workers if worker.job is not None}
            if not busy:
                break
            wait([worker.connection for worker in busy.values()], _patience(deadline, *busy.values()))
            for job, worker in busy.items():
                outcome = worker.outcome()
                if isinstance(outcome, str):
                    replies[job] = Message(Error(ErrorCode.CLIENT_APP_CRASHED, outcome), reply_to=messages[job])
                    self._replace(worker)
                elif outcome is not None:
                    replies[job], state = outcome
                    if not replies[job].has_error():
                        context_of(messages[job].metadata.dst_node_id).state = state
        for worker in [w for w in self._workers if w.job is not None]:
            self._replace(worker)
        for worker in self._workers:
            worker.records.clear()
        return [replies[index] for index in sorted(replies)]

    def _replace(self, worker: "_Worker") -> None:
        worker.kill()
        self._workers[self._workers.index(worker)] = self._new_worker()

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


def _patience(deadline: float | None, *workers: "_Worker") -> float | None:
    """Seconds until the next limit; None for ever."""
    limits = [limit for limit in (deadline, *(worker.limit for worker in workers)) if limit is not None]
    return max(0.0, min(limits) - time.monotonic()) if limits else None


class _Worker:
    """One process, the pipe to it, the index of the message it works on, and when it must be done."""

    def __init__(self, processes: Any, client_app: str, threads: int, client_timeout: float) -> None:
        self.connection, theirs = processes.Pipe()
        self.process = processes.Process(target=_serve, args=(theirs, client_app, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.client_timeout = client_timeout
        self.job: int | None = None
        self.limit: float | None = None
        self.records: dict[int, ArrayRecord] = {}  # what the process holds already: the round's weights go there once

    def start(self, index: int, message: Message, context: Context) -> None:
        self.job = index
        self.limit = time.monotonic() + self.client_timeout if self.client_timeout else None
        content = dict(message.content)
        arrays = {key: record for key, record in content.items() if isinstance(record, ArrayRecord)}
        new = {id(r): r for r in arrays.values() if id(r) not in self.records}
        self.records |= new
        rest = RecordDict({key: record for key, record in content.items() if key not in arrays})
        keys = {key: id(record) for key, record in arrays.items()}
        with suppress(OSError):  # the process is gone: outcome() says so
            self.connection.send((with_content(message, rest), keys, new, list(self.records), context))

    def outcome(self) -> tuple[Message, RecordDict] | str | None:
        """The reply and the client's new state; or why there will be none; or None while it works."""
        if self.connection.poll():
            try:
                answered: tuple[Message, RecordDict] = self.connection.recv()
            except (EOFError, OSError):
                return f"its worker process died ({self._epitaph()})"
            self.job = None
            return answered
        if self.limit is not None and time.monotonic() > self.limit:
            return f"it did not answer within client-timeout = {self.client_timeout:g} s"
        return None

    def _epitaph(self) -> str:
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
