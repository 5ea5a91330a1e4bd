"""An installed fedsparse takes one name, and leaves those of a user's own modules alone."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from io import BytesIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("clients", "strategies", "partitions")
SCRIPT = """
import clients, main
import fedsparse
fedsparse.run(rounds=1, clients=4, clients_per_round=2, workers=2, model="mlp-small", logdir="runs")
import strategies, partitions
print("mine:", clients.mine, main.mine, strategies.mine, partitions.mine)
"""


def test_every_package_is_in_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    inside = {f"fedsparse.{folder}" for folder in FOLDERS}
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "fedsparse").rglob("__init__.py")}
    assert sorted(listed) == sorted(found | inside)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the tracked files, because a build writes beside them."""
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True)
    if packed.returncode:
        pytest.skip("not in a git repository")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    return tmp_path / "source"


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["--editable"]], ids=["wheel", "editable"])
def test_an_app_with_modules_named_as_our_folders_runs_beside_an_installed_fedsparse(
    source: Path, tmp_path: Path, mode: list[str]
) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python, app = tmp_path / "venv" / "bin" / "python", tmp_path / "app"
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib"))  # its .pth files, and so its fedsparse, are left
    install = ["install", "-q", "--no-deps", "--no-build-isolation", *mode, str(source)]
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True, env=plain)
    app.mkdir()
    for module in (*FOLDERS, "main"):
        (app / f"{module}.py").write_text("mine = 1\n")
    (app / "experiment.py").write_text(SCRIPT)
    done = subprocess.run([str(python), "experiment.py"], cwd=app, env=plain, capture_output=True, text=True)
    assert "mine: 1 1 1 1" in done.stdout, done.stderr


RACE = """
import importlib.machinery, sys, threading, time
loader, run = importlib.machinery.SourceFileLoader, importlib.machinery.SourceFileLoader.exec_module
def slow(self, module):
    if module.__name__ == "fedsparse":
        time.sleep(0.5)
    run(self, module)
loader.exec_module = slow
first = threading.Thread(target=__import__, args=["fedsparse"])
first.start()
time.sleep(0.1)
__import__(sys.argv[1])
"""


@pytest.mark.parametrize("app", ["flower_server", "flower_client"])
def test_flower_can_load_an_app_in_one_thread_while_another_begins_to_import_fedsparse(app: str) -> None:
    subprocess.run([sys.executable, "-c", RACE, f"fedsparse.{app}"], check=True, timeout=60, cwd=ROOT)
