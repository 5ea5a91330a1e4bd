"""The process that ends a run on Flower's runtime when the process that started it is gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from fedsparse.engine import flower_end
from tests.e2e.deployment import wait_until

PARENT = """
import signal, subprocess, sys, time
command = [sys.executable, "-I", sys.argv[1], sys.argv[2]]
ending = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
ending.stdout.readline()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_runs_processes_and_its_folder_are_gone_when_the_parent_was_killed_after_other_signals(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    daemon = subprocess.Popen(["sleep", "600"], env=os.environ | {"FLWR_HOME": str(home)}, start_new_session=True)
    stranger = subprocess.Popen(["sleep", "600"], env=os.environ | {"FLWR_HOME": f"{home}-2"})
    command = [sys.executable, "-c", PARENT, flower_end.__file__, home]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout
    try:
        assert parent.stdout.readline() == b"ready\n"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
            os.killpg(parent.pid, number)
        parent.kill()
        assert daemon.wait(20) == -signal.SIGKILL
        wait_until(lambda: not home.exists(), 20)
        assert stranger.poll() is None
    finally:
        for process in (daemon, stranger, parent):
            process.kill()
            process.wait()
