"""When Flower's runtime stops a ServerApp, it ends as after Ctrl-C, and so saves its results.

A ServerApp in a process of its own gets SystemExit from Flower. In Flower's simulation the ServerApp is a thread beside
the main thread, and would end without any exception: ``stoppable`` raises one.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.supercore.exit import add_exit_handler

from fedsparse.engine.lanes import interrupt

PATIENCE_SECONDS = 4.0  # Flower ends the process by force after 5


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
