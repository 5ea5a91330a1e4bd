"""When Flower's runtime stops a ServerApp, it ends as after Ctrl-C, and so saves its results.

A ServerApp in a process of its own gets SystemExit from Flower. In Flower's simulation the ServerApp is a thread beside
the main thread, and would end without any exception: ``stoppable`` raises one.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flwr.supercore.exit import add_exit_handler

from fedsparse.engine.lanes import interrupt

PATIENCE_SECONDS = 4.0  # Flower ends the process by force after 5


@contextmanager
def finishing() -> Iterator[None]:
    """A context to whose end a Ctrl-C is put off, so that a checkpoint can be written then; a second one is not.

    This holds for every signal that raises KeyboardInterrupt, in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.default_int_handler]
    asked: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt in this thread when another thread ends the process; that thread waits meanwhile."""
    thread, done = threading.get_ident(), threading.Event()

    def stop() -> None:
        if threading.get_ident() != thread and not done.is_set():
            interrupt(thread)
            done.wait(PATIENCE_SECONDS)

    add_exit_handler(stop)
    try:
        yield
    finally:
        done.set()
