"""What commands show, in terminals of few columns or few characters."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedsparse.commands import main
from fedsparse.report.grid import read_sweep
from tests.e2e.as_user import shell, tiny
from tests.e2e.deployment import ROOT
from tests.fedsparse.report.made_up import result as made_up


def test_a_partition_is_shown_within_the_columns_of_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["partition", "--distribution", "dirichlet", "--logdir", str(tmp_path)]) == 0
    *lines, saved = capsys.readouterr().out.splitlines()
    assert saved.startswith("saved as ")
    assert 60 < max(map(len, lines)) <= 80


def test_labels_with_gaps_are_told_in_one_line_at_the_start_of_a_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with np.load(tiny(tmp_path)) as arrays:
        shifted = {name: array + name.startswith("y_") for name, array in arrays.items()}
    np.savez(tmp_path / "from-1.npz", **shifted)
    small = ["--dataset", str(tmp_path / "from-1.npz"), "--clients", "4", "--rounds", "1", "--clients-per-round", "2"]
    assert main([*small, "--workers", "2", "--model", "mlp-small", "--logdir", str(tmp_path / "runs")]) == 0
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "no training sample has the label 0" in line)
    assert "the model has 11 outputs" in line


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["partition", "--distribution", "dirichlet"], "client  samples  classes"),
        (["sweep", "GRID"], "| 2 | 50.0% +- "),
        (["report", "GRID"], "| 2 | 50.0% +- "),
        (["bench-compressors", "--size", "1000"], "| topk |"),
        (["--help"], "usage: "),
        (["--rounds", "1", "--clients", "2", "--clients-per-round", "1", "--model", "mlp-small"], "both ways"),
    ],
    ids=["partition", "sweep", "report", "bench-compressors", "help", "run"],
)
def test_no_command_ends_because_of_its_own_ornaments(tmp_path: Path, command: list[str], shown: str) -> None:
    (tmp_path / "grid.yaml").write_text("grid: {seed: [0, 1]}\n")
    for cell in read_sweep(tmp_path / "grid.yaml", {"logdir": str(tmp_path)}).cells:
        home = tmp_path / "grid" / cell.name
        home.mkdir(parents=True)
        result = made_up([0.1, 0.5 + cell.config.seed / 10000], **cell.config.flat())
        (home / "result.json").write_text(json.dumps(result))
    place = {"sweep": tmp_path / "grid.yaml", "report": tmp_path / "grid"}.get(command[0], tmp_path)
    command = [str(place) if word == "GRID" else word for word in command]
    process = shell(
        *command, "--logdir", str(tmp_path), env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert shown in out
    assert "Traceback" not in err


def test_a_run_says_what_it_is_before_it_reads_torch_and_the_data(tmp_path: Path) -> None:
    code = "import sys, fedsparse.commands.run; sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    process = shell("--dataset", "absent.npz", "--distribution", "dirichlet", "--logdir", str(tmp_path))
    out, err = process.communicate(timeout=120)
    wanted = "absent.npz, dirichlet (beta 0.1): 10 of 100 clients a round, rounds: 150, fedavg, hggtopk at density 0.06"
    assert out == wanted + "\n"
    assert err.splitlines() == [f"main.py: {Path('absent.npz').absolute()}: no such file"]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_process_outlives_a_command_that_fails(tmp_path: Path, workers: int) -> None:
    process = shell("--dataset", "absent.npz", "--workers", str(workers), "--logdir", str(tmp_path))
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    process.communicate(timeout=120)  # waits for the end of the output of each process that has it open
    assert process.returncode == 2
    for child in children.stdout.split():
        assert not Path(f"/proc/{child}").exists()


def test_a_command_without_standard_output_does_its_work(tmp_path: Path) -> None:
    main_py = Path(__file__).parents[2] / "main.py"
    command = f"exec >&- 2>&-; exec {sys.executable} {main_py} partition --clients 5 --logdir {tmp_path}"
    assert subprocess.run(["sh", "-c", command], timeout=120).returncode == 0
    assert list(tmp_path.rglob("*.png"))


CTRL_C = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == "fedsparse.commands.command_line":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
"""


@pytest.mark.parametrize("program", [["main.py"], ["-m", "fedsparse"]])
def test_ctrl_c_while_a_command_is_still_imported_ends_it_without_a_word(tmp_path: Path, program: list[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(CTRL_C)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *program, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
