"""Two threads that call clients on a GPU: while one client's update is compressed and coded, the next one trains.

Each has a CUDA stream of its own, on which all of its work is done. The clients' app sees to it that one trains at a
time, and that the two share no model: on the device that costs a second one, and a second cache of the allocator's.
"""

import ctypes
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


class Lanes:
    """The threads, for clients that train on ``device``; on the CPU they have no streams."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._threads = ThreadPoolExecutor(2, "lane", self._begin, (device,))
        self._busy: set[int] = set()
        self._lock = threading.Lock()

    def map(self, call: Callable[[Job], Result], jobs: Iterable[Job]) -> list[Result]:
        """``call`` of every job, started and returned in their order.

        When one raises, or Ctrl-C ends the wait, no further one is started and those at work are interrupted.
        """
        try:
            return list(self._threads.map(partial(self._run, call), jobs))
        except BaseException:
            with self._lock:
                for thread in self._busy:
                    interrupt(thread)
            raise

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _begin(self, device: torch.device) -> None:
        if self._on_gpu:
            torch.cuda.set_stream(torch.cuda.Stream(device))

    def _run(self, call: Callable[[Job], Result], job: Job) -> Result:
        thread = threading.get_ident()
        with self._lock:
            self._busy.add(thread)
        try:
            result = call(job)
            if self._on_gpu:  # what a client leaves on the device may be used on the other stream the next time
                torch.cuda.current_stream().synchronize()
            return result
        finally:
            with self._lock:
                self._busy.discard(thread)


def interrupt(thread: int) -> None:
    """Raise KeyboardInterrupt in another thread, as soon as it runs Python again."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
