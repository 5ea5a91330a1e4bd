"""The Flower apps among the examples run, and their diffs of two lines make their uplink small."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedsparse.flower import run_app

ROOT = Path(__file__).parents[2]
SHORT = {"pytorch": ("rounds=2 fraction-train=0.02", 100), "sklearn": ("rounds=2", 3), "lora": ("rounds=2 steps=1", 4)}
"""Run configs, and nodes, for a run of seconds."""

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git applies the diff")


def test_every_app_is_tested() -> None:
    assert {path.parent.name for path in (ROOT / "examples" / "flower").glob("*/pyproject.toml")} == set(SHORT)


def uplink(app: Path, run_config: str, nodes: int | str = "") -> int:
    return int(run_app(app, run_config, num_supernodes=nodes, logdir=app / "runs").summary["uplink-bytes"])


def dense_and_with_the_two_lines(app: str, folder: Path) -> tuple[Path, Path]:
    """Two copies of an app among the examples."""
    if app == "sklearn":
        pytest.importorskip("sklearn")
    dense, short = (Path(shutil.copytree(ROOT / "examples" / "flower" / app, folder / name)) for name in ("a", "b"))
    subprocess.run(["git", "apply", "two_lines.diff"], cwd=short, check=True)
    return dense, short


@needs_git
@pytest.mark.parametrize("app", ["pytorch", "sklearn", pytest.param("lora", marks=pytest.mark.slow)])
def test_two_lines_make_an_apps_uplink_twenty_times_smaller(app: str, tmp_path: Path) -> None:
    dense, short = dense_and_with_the_two_lines(app, tmp_path)
    assert uplink(dense, *SHORT[app]) > 20 * uplink(short, *SHORT[app]) > 0


@needs_git
def test_the_scikit_learn_app_learns_as_well_with_a_fiftieth_of_the_uplink(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent, accuracy = [], []
    for app in dense_and_with_the_two_lines("sklearn", tmp_path):
        sent.append(uplink(app, "rounds=10"))
        accuracy += [float(each) for each in re.findall(r"^accuracy (.*)$", capsys.readouterr().out, re.MULTILINE)]
    assert sent[0] > 50 * sent[1] > 0
    assert accuracy[0] > 0.5  # guessing has 0.1
    assert accuracy[1] == pytest.approx(accuracy[0], abs=0.03)
