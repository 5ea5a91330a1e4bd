"""The process that forks the workers: only where there will be workers, and never longer than its command."""

import subprocess
import sys

SCRIPT = """
import os, signal
from multiprocessing import forkserver
from fedsparse.commands.run import start_workers_early
from fedsparse.config import Config
from fedsparse.engine import fork_server

start_workers_early(Config(workers=1))
print(forkserver._forkserver._forkserver_pid)
start_workers_early(Config(workers=2))
pid = forkserver._forkserver._forkserver_pid
fork_server.end()
print(os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL)
"""


def test_one_worker_needs_no_fork_server_and_a_command_ends_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.stdout == "None\nTrue\n", done.stderr
