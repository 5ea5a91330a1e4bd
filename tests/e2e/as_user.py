"""What tests type, as a user would."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from fedsparse.commands import main

ROOT = Path(__file__).parents[2]
SMALL = ["--distribution", "dirichlet", "--clients-per-round", "3", "--rounds", "2", "--eval-every", "1"]


def run(tmp_path: Path, *flags: str) -> dict:
    """Run in this process; returns the result JSON."""
    outfile = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
    code = main([*SMALL, "--workers", "1", *flags, "--logdir", str(tmp_path / "runs"), "--outfile", str(outfile)])
    assert code == 0
    return json.loads(outfile.read_text())


def tiny(tmp_path: Path) -> str:
    """A data set of 200 images, as a file."""
    from fedsparse.data import load_dataset

    data = load_dataset()
    arrays = {name: getattr(data, name)[:200].squeeze().numpy() for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "tiny.npz", **arrays)
    return str(tmp_path / "tiny.npz")


def shell(*arguments: str, **options: object) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)
