"""A ServerApp that Flower's runtime stops ends as by Ctrl-C, and so saves what was measured.

In a process of its own it sees SystemExit. In Flower's simulation it is a thread beside the main one, which would end
without a word.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.supercore.exit import add_exit_handler

from fedsparse.engine.lanes import interrupt

PATIENCE_SECONDS = 4.0  # Flower ends the process by force after 5


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt in this thread when another one begins to end the process, and let that one wait."""
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
