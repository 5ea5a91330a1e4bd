"""Who else can get at a run on Flower's runtime, and what stays of one that is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.deployment import ROOT, marked, wait_until

pytestmark = pytest.mark.slow

RAY_CLIENT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("ran", ray.get(ray.remote(num_cpus=0)(lambda: 6 * 7).remote(), timeout=30))
"""
HTTP_CLIENT = """
import os, sys, urllib.error, urllib.request

def status(**headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers)).status
    except urllib.error.HTTPError as error:
        return error.code

own = status()
os.setuid(65534)
print(own, status(), status(**{"X-Forwarded-For": "127.0.0.1"}))
"""


class Running(NamedTuple):
    process: subprocess.Popen[str]
    home: Path
    runs: Path

    def listening(self) -> dict[int, tuple[str, bytes]]:
        """Address and command line by port, of all sockets of the run's processes that listen."""
        sockets = {}
        for table in ("tcp", "tcp6"):
            for fields in map(str.split, Path("/proc/net", table).read_text().splitlines()[1:]):
                if fields[3] == "0A":
                    sockets[f"socket:[{fields[9]}]"] = fields[1].split(":")
        found = {}
        for pid in marked(f"FLWR_HOME={self.home}"):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if link := sockets.get(os.readlink(descriptor)):
                    found[int(link[1], 16)] = link[0], Path(f"/proc/{pid}/cmdline").read_bytes()
        return found

    def port(self, name: bytes) -> int:
        (port,) = (port for port, (_, command) in self.listening().items() if name in command)
        return port


@pytest.fixture(scope="module")
def run() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as folder:
        command = [sys.executable, "main.py", "--engine", "flower", "--workers", "1", "--rounds", "100000"]
        command += ["--clients", "4", "--clients-per-round", "2", "--model", "mlp-small", "--logdir", f"{folder}/runs"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"TMPDIR": folder}, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        try:
            assert any(line.startswith("round      2/") for line in process.stdout)
            (home,) = Path(folder).glob("fedsparse-*")
            yield Running(process, home, Path(folder, "runs"))
        finally:
            process.terminate()
            process.communicate()


def test_flower_and_ray_hear_this_machine_alone_and_only_this_user_can_enter_their_folder(run: Running) -> None:
    addresses = {address for address, _ in run.listening().values()}
    assert addresses == {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, of both IP versions
    assert run.home.stat().st_mode & 0o777 == 0o700
    assert list(run.home.glob("ray/session_*/sockets/raylet"))


def test_a_ray_client_without_the_runs_token_is_refused(run: Running) -> None:
    (token,) = {
        variable
        for pid in marked(f"FLWR_HOME={run.home}")
        for variable in Path(f"/proc/{pid}/environ").read_text().split("\0")
        if variable.startswith("RAY_AUTH_TOKEN=")
    }
    plain = {"PATH": os.environ["PATH"], "RAY_TMPDIR": str(run.home), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    wrong = plain | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    right = wrong | {"RAY_AUTH_TOKEN": token.partition("=")[2]}
    command = [sys.executable, "-c", RAY_CLIENT, f"127.0.0.1:{run.port(b'gcs_server')}"]
    outcomes = [subprocess.run(command, env=env, capture_output=True, text=True) for env in (plain, wrong, right)]
    assert [done.stdout for done in outcomes] == ["", "", "ran 42\n"], outcomes[2].stderr
    assert "Failed to connect" in outcomes[0].stderr
    assert re.search("authenticat|token", outcomes[1].stderr, re.IGNORECASE)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_another_user_is_refused_by_the_runs_superlink(run: Running) -> None:
    url = f"http://127.0.0.1:{run.port(b'guarded_superlink')}/health"
    done = subprocess.run([sys.executable, "-c", HTTP_CLIENT, url], capture_output=True, text=True)
    assert done.stdout == "200 403 403\n", done.stderr


def test_a_run_on_flowers_runtime_that_is_killed_saves_and_ends_with_all_it_started(run: Running) -> None:
    assert len(marked(f"FLWR_HOME={run.home}")) > 5
    run.process.send_signal(signal.SIGKILL)
    wait_until(lambda: not marked(f"FLWR_HOME={run.home}") and not run.home.exists(), 30)
    time.sleep(0.5)  # something that was just starting would be here by now
    assert not marked(f"FLWR_HOME={run.home}")
    (result,) = run.runs.glob("*/result.json")
    assert json.loads(result.read_text())["summary"]["ended"] == "interrupted"
    assert list(result.parent.glob("checkpoint/*.json"))
