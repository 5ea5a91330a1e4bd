"""The recipe for several machines in docs/deployment.md, followed as it is printed, and attacked."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.deployment import ROOT, marked, wait_until

PAGE = (ROOT / "docs" / "deployment.md").read_text()
BLOCK = re.compile(r"^```(?:ba)?sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXPORTS = BLOCK.findall(PAGE)[0]
SECTION = PAGE[PAGE.index("## Several machines") : PAGE.index("### Who may do what")]
CERTIFICATE, SUPERLINK, CONNECTION, KEY, REGISTRATION, SUPERNODE, RUN = BLOCK.findall(SECTION)

AS_ANOTHER_USER = """
import os, socket

connect = socket.socket.connect

def connect_as_another_user(self, address):
    os.fchown(self.fileno(), 65534, -1)
    return connect(self, address)

socket.socket.connect = connect_as_another_user
"""
"""As sitecustomize.py, lets the connections of root's processes belong to another user, as those from elsewhere do not
belong to the SuperLink's user either."""


class Site:
    """One machine of the recipe: a folder, which is also the home folder."""

    def __init__(self, folder: Path, foreign: bool = False) -> None:
        self.folder = folder
        folder.mkdir()
        path = [str(ROOT)]
        if foreign and os.getuid() == 0:
            (folder / "other").mkdir()
            (folder / "other/sitecustomize.py").write_text(AS_ANOTHER_USER)
            path.insert(0, str(folder / "other"))
        self.environment = os.environ | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path),
            "OMP_NUM_THREADS": "1",
            "FEDSPARSE_TEST": str(folder.parent),
        }
        self.environment.pop("FLWR_HOME", None)

    def start(self, block: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a block of the page in bash, with host and folder names replaced, and its output in ``log``."""
        script = (EXPORTS + block).replace("server.example", "localhost").replace("/srv", str(self.folder))
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                ["bash", "-euc", script], cwd=cwd or self.folder, env=self.environment, stdout=log, stderr=log
            )

    def run(self, block: str, cwd: Path | None = None) -> str:
        """Run a block, which takes at most five minutes; returns what it printed."""
        before = len(self.log())
        code = self.start(block, cwd).wait(300)
        assert code == 0, self.log()
        return self.log()[before:]

    def log(self) -> str:
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server with its SuperLink and the connection ``lab``."""
    root = tmp_path_factory.mktemp("recipe")
    here = Site(root / "server")
    here.run(CERTIFICATE)
    here.start(SUPERLINK)

    def is_there() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", 9091)):
            return True
        return False

    try:
        wait_until(is_there, 60)
        here.run(CONNECTION)
        yield here
    finally:
        for pid in marked(f"FEDSPARSE_TEST={root}"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def visitor(server: Site, name: str) -> Site:
    """Another machine, which has the public certificate alone."""
    site = Site(server.folder.parent / name, foreign=True)
    shutil.copy(server.folder / "ca.crt", site.folder)
    return site


def listed(server: Site, command: str, key: str, field: str) -> list[str]:
    """A field of all runs or nodes of the SuperLink."""
    shown = server.run(f"{command} lab --format json")
    return [entry[field] for entry in json.JSONDecoder().raw_decode(shown[shown.index("{") :])[0][key]]


def test_the_recipes_blocks_are_bash_and_its_certificate_passes_the_strictest_check(tmp_path: Path) -> None:
    for block in BLOCK.findall(PAGE):
        subprocess.run(["bash", "-n"], input=block.encode(), check=True)
    subprocess.run(["bash", "-euc", CERTIFICATE], cwd=tmp_path, check=True, capture_output=True)
    for name in (["-verify_hostname", "server.example"], ["-verify_ip", "127.0.0.1"]):
        command = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", *name, "server.pem"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_for_several_machines_runs_as_it_is_printed(server: Site) -> None:
    client = visitor(server, "client")
    client.run(KEY)
    shutil.copy(client.folder / "node_key.pub", server.folder)
    server.run(REGISTRATION)
    supernode = client.start(SUPERNODE)
    server.run(RUN, cwd=ROOT)
    assert listed(server, "flwr list", "runs", "status") == ["finished:completed"], server.log()
    (result,) = server.folder.glob("runs/*/result.json")
    assert json.loads(result.read_text())["summary"]["rounds"] == 2
    supernode.terminate()


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can make connections of another user")
def test_a_stranger_with_the_certificate_can_neither_register_a_supernode_nor_start_a_run(server: Site) -> None:
    entries = (("flwr list", "runs", "run-id"), ("flwr supernode ls", "nodes", "node-id"))
    before = [listed(server, *what) for what in entries]
    stranger = visitor(server, "stranger")
    stranger.run(CONNECTION + KEY)
    for attempt in (REGISTRATION, RUN, "flwr list lab", "flwr supernode ls lab"):
        seen = len(stranger.log())
        stranger.start(attempt, cwd=ROOT if attempt == RUN else None).wait(120)
        assert re.search("403|own user alone", stranger.log()[seen:]), stranger.log()[seen:]
    assert stranger.start(SUPERNODE).wait(60) != 0
    assert "Exit Code: 305" in stranger.log()
    assert before == [listed(server, *what) for what in entries]
