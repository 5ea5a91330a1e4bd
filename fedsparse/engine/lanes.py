"""Two threads that call clients on a GPU: while one client's update is compressed and coded, the next client trains.

Each thread does all of its work on a CUDA stream of its own. The ClientApp ensures that one client trains at a time,
and that each thread has a model of its own. So the GPU holds a second model, and the allocator a second cache.
"""

import ctypes
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")

PATIENCE_SECONDS = 2.0
"""How long to wait for an interrupted call to end."""


class Lanes:
    """The two threads, for clients that train on ``device``; on the CPU they have no streams."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        # The threads are daemons, because Python's exit does not wait for daemons: Ctrl-C may come during a call, for
        # instance into CUDA, that no exception can end.
        self._threads = [threading.Thread(target=self._work, args=(device,), daemon=True) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def map(self, call: Callable[[Job], Result], jobs: Iterable[Job]) -> list[Result]:
        """The results of ``call`` for every job, in the order of the jobs, which also start in this order.

        When a call raises, or Ctrl-C ends the wait, no further job starts, and the calls at work are interrupted.
        """
        futures: list[Future[Result]] = []
        try:
            for job in jobs:
                futures.append(Future())
                self._tasks.put(partial(self._run, call, job, futures[-1]))
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            with self._lock:
                for thread in self._busy:
                    interrupt(thread)
            wait(futures, PATIENCE_SECONDS)
            raise

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _work(self, device: torch.device) -> None:
        if self._on_gpu:
            torch.cuda.set_stream(torch.cuda.Stream(device))
        with suppress(KeyboardInterrupt):  # when an interrupt comes just after the call
            while task := self._tasks.get():
                task()

    def _run(self, call: Callable[[Job], Result], job: Job, future: "Future[Result]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        thread = threading.get_ident()
        with self._lock:
            self._busy.add(thread)
        try:
            result = call(job)
            if self._on_gpu:  # because the client's next call may read the results on the other stream
                torch.cuda.current_stream().synchronize()
            future.set_result(result)
        except BaseException as error:
            future.set_exception(error)
        finally:
            with self._lock:
                self._busy.discard(thread)


def interrupt(thread: int) -> None:
    """Raise KeyboardInterrupt in the thread with this identifier, as soon as it runs Python again."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
