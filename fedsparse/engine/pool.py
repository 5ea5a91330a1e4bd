"""A persistent pool of worker processes that answer messages for LocalGrid.

When a worker dies or hangs, only the replies of its present job are lost: one client's, or those of a group that trains
together. The pool replaces the worker, and the round goes on. Contexts stay in the parent process and change only when
a whole reply has arrived, so that a lost worker damages no client's state.
"""

import copy
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread

import torch
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedsparse.engine import fork_server
from fedsparse.engine.apps import Apps
from fedsparse.errors import reason

STARTUP_SECONDS = 30.0
"""Added to the time limit of a worker's first job, because the app then reads its data and builds its model."""

Answer = tuple[list[Message], list[RecordDict]]
"""The replies to a group's messages, and the new states of the group's Contexts."""


class Pool:
    """``workers`` processes, each with ``threads`` torch threads, that run a ClientApp.

    Worker i works on GPU i modulo the number of GPUs, unless the app names one.

    Args:
        load_apps: loads the app in each process.
        preloaded: modules that all processes share.
        workers: processes.
        threads: torch threads of each process.
        client_timeout: the most seconds that one client may take; 0 for no limit.
        own_gpu: whether a process sees only its own GPU.
    """

    def __init__(
        self, load_apps: Callable[[], Apps], preloaded: Sequence[str], workers: int, threads: int,
        client_timeout: float, own_gpu: bool,
    ) -> None:  # fmt: skip
        fork_server.start([__name__, *preloaded])
        self._new_worker = partial(_Worker, load_apps, threads, client_timeout, own_gpu)
        self._workers = [self._new_worker(number) for number in range(workers)]

    def run(
        self, groups: list[list[Message]], context_of: Callable[[int], Context], deadline: float | None
    ) -> list[Message]:
        """Replies in the order of ``groups``, without replies after ``deadline``. Each group is one worker's job."""
        try:
            return self._run(groups, context_of, deadline)
        except BaseException:  # because after Ctrl-C no worker may still write into the run folder
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
        """End the workers."""
        for worker in self._workers:
            worker.kill()


def _patience(deadline: float | None, *workers: "_Worker") -> float | None:
    """Seconds until the earliest limit; None when there is no limit."""
    limits = [limit for limit in (deadline, *(worker.limit for worker in workers)) if limit is not None]
    return max(0.0, min(limits) - time.monotonic()) if limits else None


class _Worker:
    """One process and the pipe to it.

    Attributes:
        job: the number of the group that the process works on; None while it is free.
        answer: the future answer to that job.
        limit: when the job must be done, by ``time.monotonic``; None for no limit.
        allowed: the same limit in words.
        records: the ArrayRecords that the process holds, by id, so that it is sent the weights of a round only once.
    """

    def __init__(
        self, load_apps: Callable[[], Apps], threads: int, client_timeout: float, own_gpu: bool, number: int
    ) -> None:
        self.connection, theirs = fork_server.PROCESSES.Pipe()
        arguments = theirs, load_apps, threads, own_gpu, number
        self.process = fork_server.PROCESSES.Process(target=_serve, args=arguments, daemon=True)
        with fork_server.starting():
            self.process.start()
        theirs.close()
        self.client_timeout, self.new = client_timeout, True
        self.job: int | None = None
        self.answer: Future[Answer] = Future()
        self.limit: float | None = None
        self.allowed = ""
        self.records: dict[int, ArrayRecord] = {}

    def start(self, job: int, group: list[Message], contexts: list[Context]) -> None:
        """Send a group's messages to the process, with ids in place of the arrays that it already holds."""
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
        # A thread exchanges the messages, so that a process that stops in the middle of a message does not block the
        # parent. The thread is a daemon, because Ctrl-C may come then, and Python's exit does not wait for daemons.
        Thread(target=self._exchange, args=(task, self.answer), daemon=True).start()
        self.job = job  # last, because kill() waits for the answer of a worker that has a job

    def _exchange(self, task: object, answer: Future[Answer]) -> None:
        try:
            self.connection.send(task)
            answer.set_result(self.connection.recv())
        except BaseException as error:
            answer.set_exception(error)

    def outcome(self) -> Answer | str | None:
        """The replies and new states; or the reason why they will not come; or None while the process works."""
        if self.answer.done():
            try:
                answered = self.answer.result()
            except (EOFError, OSError):
                return f"its worker process died: {self._cause_of_death()}"
            self.job = None
            return answered
        if self.limit is not None and time.monotonic() > self.limit:
            return f"it did not answer within {self.allowed}"
        return None

    def _cause_of_death(self) -> str:
        self.process.join(1)
        return reason("", self.process.exitcode or 0, otherwise=f"exit code {self.process.exitcode}")

    def kill(self) -> None:
        """End the process, and wait until the exchanging thread has seen the end of the pipe."""
        self.process.kill()
        self.process.join()
        if self.job is not None:
            wait([self.answer], timeout=5)
        self.connection.close()


def with_content(message: Message, content: RecordDict) -> Message:
    """The same message with other records."""
    other = copy.copy(message)
    other.content = content
    return other


def _end_with_the_parent() -> None:
    """End this process when the parent is gone, so that a killed run's workers write nothing beside a resumed one."""
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _take_gpu(number: int, alone: bool) -> None:
    """Let "cuda" without a number mean this worker's GPU; with ``alone``, "cuda:0" too, as the only one to be seen."""
    if alone and (count := torch.cuda.device_count()):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number % count]
    elif torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _serve(connection: Connection, load_apps: Callable[[], Apps], threads: int, own_gpu: bool, number: int) -> None:
    """The main function of a worker: answer messages until the parent closes the pipe or dies."""
    for (
        ending
    ) in fork_server.STOPPING:  # the terminal and SLURM send them to workers too, but the parent ends the workers
        signal.signal(ending, signal.SIG_IGN)
    Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _take_gpu(number, own_gpu)
    apps = load_apps()
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
