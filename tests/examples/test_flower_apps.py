"""The Flower apps among the examples run, and their diffs of two lines make their uplink small."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fedsparse.flower import run_app

ROOT = Path(__file__).parents[2]
SHORT = {"pytorch": ("rounds=2 fraction-train=0.02", 100), "sklearn": ("rounds=2", 3), "lora": ("rounds=2 steps=1", 4)}
"""Run configs, and nodes, for a run of seconds."""


def test_every_app_is_tested() -> None:
    assert {path.parent.name for path in (ROOT / "examples" / "flower").glob("*/pyproject.toml")} == set(SHORT)


@pytest.mark.skipif(not shutil.which("git"), reason="git applies the diff")
@pytest.mark.parametrize("app", ["pytorch", "sklearn", pytest.param("lora", marks=pytest.mark.slow)])
def test_two_lines_make_an_apps_uplink_twenty_times_smaller(app: str, tmp_path: Path) -> None:
    if app == "sklearn":
        pytest.importorskip("sklearn")
    shutil.copytree(ROOT / "examples" / "flower" / app, tmp_path / "app")
    run_config, nodes = SHORT[app]

    def uplink() -> int:
        run = run_app(tmp_path / "app", run_config, num_supernodes=nodes, logdir=tmp_path / "runs")
        return int(run.summary["uplink-bytes"])

    before = uplink()
    subprocess.run(["git", "apply", "two_lines.diff"], cwd=tmp_path / "app", check=True)
    assert before > 20 * uplink() > 0
