"""Runs the project's script that starts a SuperLink and SuperNodes on this machine, for tests."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "configs" / "deployment" / "one_machine.sh"


@contextmanager
def deployment(folder: Path, nodes: int, settings: str, app: Path = ROOT) -> Iterator[subprocess.Popen]:
    """The running script, with its output in ``folder / "log"``; at the end all of its processes are ended."""
    environment = os.environ | {
        "FLWR_HOME": str(folder / "flwr"),
        "FEDSPARSE_APP": str(app),
        "FEDSPARSE_PORT": str(free_ports(1 + nodes)),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    (folder / "flwr").mkdir()
    with (folder / "log").open("w") as log:
        script = subprocess.Popen([SCRIPT, str(nodes), settings], stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        yield script
    finally:
        script.terminate()
        with suppress(subprocess.TimeoutExpired):
            script.wait(10)
        for pid in marked(f"FLWR_HOME={folder / 'flwr'}"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive free ports."""
    for first in range(21000, 60000, count):
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
    raise OSError("no free ports")


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def marked(variable: str) -> list[int]:
    """The other processes with this ``NAME=value`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]


def supernode(folder: Path, number: int) -> int:
    """The process of a SuperNode of the script's."""
    found = re.search(rf"SuperNode {number}: process (\d+)", (folder / "log").read_text())
    assert found
    return int(found[1])


def started_again(pid: int) -> subprocess.Popen:
    """Kill a SuperNode, and start another one as it was started; ``deployment`` ends that one, too."""
    process = Path(f"/proc/{pid}")
    command, environment = (process / "cmdline").read_bytes().split(b"\0")[:-1], (process / "environ").read_bytes()
    os.kill(pid, signal.SIGKILL)
    variables = dict(variable.split(b"=", 1) for variable in environment.split(b"\0")[:-1])
    return subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
