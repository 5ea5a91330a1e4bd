"""Ctrl-C at any moment: exit code 130, the rounds so far are saved, no process stays behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.deployment import ROOT, marked, wait_until

pytestmark = pytest.mark.slow  # because they depend on the clock, and need an idle machine


def interrupt(tmp_path: Path, moment: str | float, *flags: str, kill: bool = False) -> list[dict]:
    """Send Ctrl-C to a run, as a terminal does, after some seconds or at a line; returns its summaries, none or one.

    With ``kill``, SIGTERM to the one process instead.
    """
    command = [sys.executable, "main.py", "--rounds", "100000", "--clients", "4", "--clients-per-round", "2"]
    command += ["--eval-every", "1", "--model", "mlp-small", "--logdir", str(tmp_path / "runs"), *flags]
    variable = {"FEDSPARSE_TEST": str(tmp_path)}  # marks the run's processes
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | variable, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    if isinstance(moment, str):
        shown = next((line for line in process.stdout if line.startswith(moment)), None)
        assert shown is not None, process.stderr.read()
    else:
        time.sleep(moment)
    if kill:
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    wait_until(lambda: not marked(f"FEDSPARSE_TEST={tmp_path}"), 20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return [json.loads(file.read_text())["summary"] for file in tmp_path.glob("runs/*/result.json")]


@pytest.mark.parametrize("seconds", [2.0, 4.0])
def test_a_run_that_starts_is_interrupted(tmp_path: Path, seconds: float) -> None:
    interrupt(tmp_path, seconds, "--workers", "2")


@pytest.mark.parametrize("kill", [False, True])
def test_a_run_in_its_first_round_is_interrupted(tmp_path: Path, kill: bool) -> None:
    (summary,) = interrupt(tmp_path, "round      0/", "--workers", "2", "--epochs", "100000", kill=kill)
    assert (summary["ended"], summary["rounds"]) == ("interrupted", 0)


@pytest.mark.parametrize("seconds", [4.0, 20.0])
def test_a_run_on_flowers_runtime_that_starts_is_interrupted(tmp_path: Path, seconds: float) -> None:
    interrupt(tmp_path, seconds, "--engine", "flower")


@pytest.mark.parametrize(("moment", "least", "epochs"), [("round      0/", 0, "100000"), ("round      2/", 2, "1")])
def test_an_interrupted_run_on_flowers_runtime_saves_its_rounds(
    tmp_path: Path, moment: str, least: int, epochs: str
) -> None:
    (summary,) = interrupt(tmp_path, moment, "--engine", "flower", "--workers", "2", "--epochs", epochs)
    assert summary["ended"] == "interrupted"
    assert summary["rounds"] >= least


def test_a_run_whose_terminal_closes_saves_its_result(tmp_path: Path) -> None:
    flags = ["--rounds", "100000", "--model", "mlp-small", "--workers", "1", "--logdir", str(tmp_path)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "main.py", *flags])
    wait_until(lambda: any(len(rows.read_text().splitlines()) > 3 for rows in tmp_path.glob("*/rounds.csv")), 120)
    os.close(terminal)
    os.waitpid(pid, 0)
    (file,) = tmp_path.glob("*/result.json")
    summary = json.loads(file.read_text())["summary"]
    assert summary["ended"] in ("interrupted", "failed")  # by the signal, or by a line that could not be printed
    assert summary["rounds"] > 0


def test_nohup_keeps_a_run_going(tmp_path: Path) -> None:
    command = ["nohup", sys.executable, "main.py", "--rounds", "100000", "--model", "mlp-small", "--workers", "1"]
    process = subprocess.Popen([*command, "--logdir", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        shown = iter(process.stdout)
        assert any(line.startswith("round      2/") for line in shown)
        process.send_signal(signal.SIGHUP)
        assert any(line.startswith("round     50/") for line in shown)
    finally:
        process.kill()
        process.wait()
