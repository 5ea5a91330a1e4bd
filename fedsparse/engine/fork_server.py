"""The process that forks the workers, which has no threads, because a forked copy of a process with threads may hang.

It imports the app once, so that a new worker is there at once. This file imports nothing heavy: a command starts the
fork server first, so that it imports torch while the command's own process imports torch too.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from types import ModuleType
from typing import Any

from fedsparse.engine.sockets import socket_folder

PROCESSES = multiprocessing.get_context("forkserver")

DATA = "FEDSPARSE_DATA"
"""The environment variable that names the data set to read: the arguments of ``load_dataset``, as JSON."""

STOPPING = (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)
"""Signals by which a terminal or a batch system stops all processes of a run."""

SOCKET = "/pymp-12345678/listener-12345678"
"""The fork server's socket in the temporary folder."""


def start(modules: Sequence[str]) -> None:
    """Start the fork server, and do not wait for it. One that runs already stays as it is.

    Args:
        modules: what it imports, so that all workers share the memory of these modules.
    """
    PROCESSES.set_forkserver_preload(list(modules))
    with starting():
        forkserver.ensure_running()


def end() -> None:
    """Kill the fork server if it runs; its workers have ended. While it imports, it would not see that its parent ends.

    Until then it would keep this process's standard output open, for which a pipe's reader waits.
    """
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)


@contextmanager
def starting() -> Iterator[None]:
    """A context in which ``multiprocessing`` may start a worker, and with the first worker the fork server.

    - ``__main__`` is empty: ``multiprocessing`` makes every worker import the parent's ``__main__``, which is no file
      in a notebook or from standard input, and which in a script without a guard would start the run again.
    - PYTHONPATH is the parent's ``sys.path``, because the fork server of Python 3.11 imports the app without it.
    - Signals that stop a run are blocked, because they would kill the fork server, which inherits this.
    """
    folder = socket_folder(len(SOCKET))
    resource_tracker.ensure_running()  # before Ctrl-C is blocked, because the tracker's start unblocks it
    path, main = os.environ.get("PYTHONPATH"), sys.modules["__main__"]
    os.environ["PYTHONPATH"] = os.pathsep.join(folder for folder in sys.path if folder)
    sys.modules["__main__"] = ModuleType("__main__")
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    temporary, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        sys.modules["__main__"] = main
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
