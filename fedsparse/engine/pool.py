"""A persistent pool of worker processes that answer messages for LocalGrid.

A worker that dies or hangs costs the reply it was working on (or its group's, when clients train together) and nothing
else: it is replaced, and the round goes on. The Context lives with the parent and changes only when a reply has arrived
whole, so a lost worker loses no update.
"""

import copy
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedsparse.engine.apps import Apps

STARTUP_SECONDS = 30.0
"""More that a new worker's first job may take: it reads the data and builds the model, once."""

Answer = tuple[list[Message], list[RecordDict]]
"""The replies to a group's messages, and its clients' new states."""


@contextmanager
def _as_the_fork_server_needs_it() -> Iterator[None]:
    """It imports the app before it learns where this process imports from (Python 3.11), and knows no Ctrl-C yet."""
    resource_tracker.ensure_running()  # as it starts, it lets Ctrl-C through again
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Pool:
    """``workers`` processes, each with ``threads`` torch threads, that run the app ``client_app`` names.

    ``together`` is as for ``LocalGrid``; ``client_timeout`` is the most seconds one client may take, 0 for no limit.
    ``preload`` are modules that the fork server imports: what they hold is in memory once, for all workers.
    Worker i works on GPU i, modulo how many there are, unless the settings name one.
    """

    def __init__(
        self, client_app: str, together: str, workers: int, threads: int, client_timeout: float,
        preload: Sequence[str] = (),
    ) -> None:  # fmt: skip
        # A forked copy of a process with threads may hang, so workers are forked by a server that has none; it has
        # imported the app already, which makes replacing a worker quick.
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload([__name__, client_app.partition(":")[0], *preload])
        self._new_worker = partial(_Worker, processes, (client_app, together), threads, client_timeout)
        with _as_the_fork_server_needs_it():
            self._workers = [self._new_worker(number) for number in range(workers)]

    def run(
        self, groups: list[list[Message]], context_of: Callable[[int], Context], deadline: float | None
    ) -> list[Message]:
        """Replies in the order of ``groups``, each one worker's job; missing are those not there by ``deadline``."""
        try:
            return self._run(groups, context_of, deadline)
        except BaseException:  # after Ctrl-C nobody may write into the run folder any more, which is about to be tidied
            self.close()
            raise

    def _run(
        self, groups: list[list[Message]], context_of: Callable[[int], Context], deadline: float | None
    ) -> list[Message]:
        waiting, replies = deque(range(len(groups))), dict[int, list[Message]]()
        while deadline is None or time.monotonic() < deadline:
            for i, worker in enumerate(self._workers):
                if worker.job is None and waiting:
                    if not worker.process.is_alive():  # it died between two rounds
                        worker = self._workers[i] = self._new_worker(i)
                    job = waiting.popleft()
                    worker.start(job, groups[job], [context_of(m.metadata.dst_node_id) for m in groups[job]])
            busy = {worker.job: worker for worker in self._workers if worker.job is not None}
            if not busy:
                break
            wait([worker.answer for worker in busy.values()], _patience(deadline, *busy.values()), FIRST_COMPLETED)
            for job, worker in busy.items():
                outcome = worker.outcome()
                if isinstance(outcome, str):
                    lost = Error(ErrorCode.CLIENT_APP_CRASHED, outcome)
                    replies[job] = [Message(lost, reply_to=message) for message in groups[job]]
                    self._replace(worker)
                elif outcome is not None:
                    replies[job], states = outcome
                    for message, reply, state in zip(groups[job], replies[job], states, strict=True):
                        if not reply.has_error():
                            context_of(message.metadata.dst_node_id).state = state
        for worker in [w for w in self._workers if w.job is not None]:
            self._replace(worker)
        for worker in self._workers:
            worker.records.clear()
        return [reply for job in sorted(replies) for reply in replies[job]]

    def _replace(self, worker: "_Worker") -> None:
        worker.kill()
        number = self._workers.index(worker)
        self._workers[number] = self._new_worker(number)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


def _patience(deadline: float | None, *workers: "_Worker") -> float | None:
    """Seconds until the next limit; None for ever."""
    limits = [limit for limit in (deadline, *(worker.limit for worker in workers)) if limit is not None]
    return max(0.0, min(limits) - time.monotonic()) if limits else None


class _Worker:
    """One process, the pipe to it, the number of the group it works on, its answer, and when it must be done."""

    def __init__(self, processes: Any, apps: tuple[str, str], threads: int, client_timeout: float, number: int) -> None:
        self.connection, theirs = processes.Pipe()
        self.process = processes.Process(target=_serve, args=(theirs, apps, threads, number), daemon=True)
        self.process.start()
        theirs.close()
        self.client_timeout, self.new = client_timeout, True
        self.job: int | None = None
        self.answer: Future[Answer] = Future()
        self.limit: float | None = None
        self.allowed = ""
        self.records: dict[int, ArrayRecord] = {}  # what the process holds already: the round's weights go there once

    def start(self, job: int, group: list[Message], contexts: list[Context]) -> None:
        patience = self.client_timeout * len(group) + (STARTUP_SECONDS if self.new else 0.0)
        self.limit = time.monotonic() + patience if self.client_timeout else None
        start = f" and {STARTUP_SECONDS:g} s for its worker's start" if self.new else ""
        self.allowed = f"client-timeout = {self.client_timeout:g} s{' a client' * (len(group) > 1)}{start}"
        self.new = False
        new: dict[int, ArrayRecord] = {}
        stripped = []
        for message in group:
            arrays = {key: r for key, r in message.content.items() if isinstance(r, ArrayRecord)}
            new |= {id(r): r for r in arrays.values() if id(r) not in self.records}
            rest = RecordDict({key: r for key, r in message.content.items() if key not in arrays})
            stripped.append((with_content(message, rest), {key: id(r) for key, r in arrays.items()}))
        self.records |= new
        self.answer = Future()
        task = (stripped, new, list(self.records), contexts)
        # A thread of its own: a process that stopped in the middle of a message blocks nobody else. A daemon, for
        # which Python's exit does not wait: Ctrl-C may meet one halfway.
        Thread(target=self._exchange, args=(task, self.answer), daemon=True).start()
        self.job = job  # last: kill() waits for the answer of a worker that has a job

    def _exchange(self, task: object, answer: Future[Answer]) -> None:
        try:
            self.connection.send(task)
            answer.set_result(self.connection.recv())
        except BaseException as error:
            answer.set_exception(error)

    def outcome(self) -> Answer | str | None:
        """The replies and the clients' new states; or why there will be none; or None while it works."""
        if self.answer.done():
            try:
                answered = self.answer.result()
            except (EOFError, OSError):
                return f"its worker process died ({self._epitaph()})"
            self.job = None
            return answered
        if self.limit is not None and time.monotonic() > self.limit:
            return f"it did not answer within {self.allowed}"
        return None

    def _epitaph(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        if self.job is not None:
            wait([self.answer], timeout=5)  # its thread meets the end of the pipe
        self.connection.close()


def with_content(message: Message, content: RecordDict) -> Message:
    """The same message around other records."""
    other = copy.copy(message)
    other.content = content
    return other


def _serve(connection: Connection, references: tuple[str, str], threads: int, number: int) -> None:
    """A worker's life: answer messages until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())  # where "cuda" without a number is
    apps = Apps(*references)
    records: dict[int, ArrayRecord] = {}
    while True:
        try:
            stripped, new, held, contexts = connection.recv()
        except EOFError:
            return
        records = {key: record for key, record in (records | new).items() if key in held}
        group = [
            with_content(message, RecordDict({**message.content, **{key: records[i] for key, i in keys.items()}}))
            for message, keys in stripped
        ]
        connection.send((apps.answer(group, contexts), [context.state for context in contexts]))
