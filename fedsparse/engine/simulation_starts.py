"""Notices that flwr-simulation dies before it begins to work; Flower starts it again without limit and says nothing.

The SuperLink finds a script of that name first in its PATH. The script notes the start, and keeps what the process
writes to stderr.
"""

import shlex
import subprocess
import threading
import time
from pathlib import Path

from fedsparse.errors import one_line, reason

NAME = "flwr-simulation"
MOST = 4
"""Starts at which a run is given up. Flower starts a process again that has not begun to work after 30 s."""


class SimulationStarts:
    """The starts of flwr-simulation for a run.

    Args:
        home: the FLWR_HOME of the run.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "starts"
        self._count, self._stderr = self.folder / "count", self.folder / "stderr"

    def note(self, program: Path) -> None:
        """Make ``folder``, with the script that starts ``program`` in it."""
        self.folder.mkdir()
        count, stderr, real = (shlex.quote(str(path)) for path in (self._count, self._stderr, program))
        script = self.folder / NAME
        script.write_text(f'#!/bin/sh\nprintf . >> {count}\nexec {real} "$@" 2>> {stderr}\n')
        script.chmod(0o700)

    @property
    def are_too_many(self) -> bool:
        """Whether the run should be given up."""
        return self._count.exists() and self._count.stat().st_size >= MOST

    def reason(self) -> str:
        """Why the process did not begin, as far as it said so."""
        said = self._stderr.read_text(encoding="utf-8", errors="replace").strip() if self._stderr.exists() else ""
        last = one_line((said.splitlines() or ["it says nothing; a try may take 30 s"])[-1])
        return f"{NAME} did not begin to work in {MOST - 1} tries: {reason(said, otherwise=last)}"

    def end(self, waiting: "subprocess.Popen[str]") -> None:
        """End a process that waits for the run, once there are too many starts; returns at once."""

        def look() -> None:
            while waiting.poll() is None:
                if self.are_too_many:
                    waiting.terminate()
                time.sleep(1)

        threading.Thread(target=look, daemon=True).start()
