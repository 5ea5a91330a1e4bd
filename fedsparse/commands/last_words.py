"""What killed this process: one line in the terminal, and Python's stack in the log folder.

A signal such as SIGSEGV, which a model of the user's own may cause, ends a process before it can say anything. So a
child of its own holds the other end of a pipe. `faulthandler` writes Python's stack into the pipe when such a signal
comes. Whatever ends the process closes the pipe; where no farewell stands in it, the child says what happened.
"""

import faulthandler
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

FAREWELL = b"\nended by itself\n"
CRASH = re.compile(r"^Fatal Python error: (.*)$", re.MULTILINE)
PLACE = re.compile(r'^  File "(.*)", (line \d+)', re.MULTILINE)
"""The first one is the innermost."""


class LastWords:
    """Made before anything heavy is imported, because the child is a copy of this process.

    Args:
        program: how the user calls it.
    """

    def __init__(self, program: str) -> None:
        reader, self._pipe = os.pipe()
        self._child = os.fork()
        if not self._child:
            try:
                os.close(self._pipe)
                _listen(reader, program)
            finally:
                os._exit(0)
        os.close(reader)
        faulthandler.enable(self._pipe, all_threads=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.disable()
        self.farewell()
        os.close(self._pipe)
        os.waitpid(self._child, 0)

    def keep_in(self, folder: str) -> None:
        """Say where the stack is to be written."""
        self._write(folder.encode(errors="surrogateescape") + b"\n")

    def farewell(self) -> None:
        """Say that the process ends by itself."""
        self._write(FAREWELL)

    def _write(self, content: bytes) -> None:
        with suppress(BrokenPipeError):  # the child was killed
            os.write(self._pipe, content)


def _listen(reader: int, program: str) -> None:
    """The child: wait for the end of the pipe, and say what ended the process that wrote into it."""
    # The terminal or a batch system sends these to parent and child.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(ending, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # a reader of this program's output waits for its end
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    if told.endswith(FAREWELL):
        return
    text = told.decode(errors="surrogateescape")
    crash, place = CRASH.search(text), PLACE.search(text)
    if not crash:
        print(f"{program}: killed from outside, perhaps out of memory, or ended by os._exit", file=sys.stderr)
        return
    folder = text[: crash.start()].strip() or "."
    where = f" ({Path(place[1]).name}, {place[2]})" if place else ""
    file = Path(folder).expanduser() / "traceback.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text[crash.start() :], errors="surrogateescape")
    print(f"{program}: killed: {crash[1]}{where} (all of it: {file})", file=sys.stderr)
