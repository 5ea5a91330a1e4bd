"""Each example does what its first lines say, from a folder outside the checkout."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORT = "--rounds 2 --clients-per-round 3 --eval-every 2 --workers 2 --logdir runs"


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_examples_command_runs(example: Path, tmp_path: Path) -> None:
    assert len(example.read_text().splitlines()) <= 40
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (command,) = [line for line in example.read_text().splitlines() if line.strip().startswith("python main.py")]
    flags = shlex.split(command)[2:]
    run = [sys.executable, "-m", "fedsparse", *flags, *shlex.split(SHORT)]
    done = subprocess.run(run, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("runs/*/result.json")
    assert json.loads(result.read_text())["summary"]["ended"] == "complete"


def test_the_notebooks_cells_run_in_order(tmp_path: Path) -> None:
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    short = code.replace('"rounds": 10', '"rounds": 2')
    assert short != code
    done = subprocess.run(
        [sys.executable, "-"], input=short, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "eden" in done.stdout
