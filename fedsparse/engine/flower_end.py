"""Ends a run on Flower's runtime with the process that started it: `python flower_end.py HOME`.

The parent holds the other end of standard input. It closes it when the run is over, and `kill -9` closes it too. All
processes of Flower and Ray have HOME as their FLWR_HOME; Ray's daemons would outlive the SuperLink and its session.

This file is run as a script and imports the standard library alone, so that it is ready at once.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

SAVING_SECONDS = 10  # that a run gets to save what it measured
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
"""What a terminal or a batch system sends to all processes of a run."""


def end_all(mark: str) -> None:
    """End every process with ``mark`` in its environment. A run that still goes on is interrupted first, and saves."""
    for pid in marked(mark, "flwr-simulation"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + SAVING_SECONDS
    while marked(mark, "flwr-simulation") and time.monotonic() < deadline:
        time.sleep(0.1)
    while left := marked(mark):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def marked(mark: str, name: str = "") -> list[int]:
    """The ids of other processes with ``mark`` in their environment and ``name`` in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or belongs to another user
            has_mark = mark.encode() in (folder / "environ").read_bytes().split(b"\0")
            if has_mark and int(folder.name) != os.getpid() and name.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    sys.stdin.buffer.read()
    end_all(f"FLWR_HOME={sys.argv[1]}")
    shutil.rmtree(sys.argv[1], ignore_errors=True)
