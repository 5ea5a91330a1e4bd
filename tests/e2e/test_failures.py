"""A failure in the middle of a command is one line with exit code 1, and its traceback is kept in a file."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from fedsparse.commands import main
from tests.e2e.as_user import shell, tiny


@pytest.mark.parametrize("clients", ["5", "100", "100000"])
def test_a_command_without_clients_asks_for_no_samples_of_theirs(tmp_path: Path, clients: str) -> None:
    flags = ["--dataset", tiny(tmp_path), "--clients", clients, "--logdir", str(tmp_path / "runs")]
    assert main(["train-central", *flags, "--rounds", "1", "--distribution", "dirichlet", "--beta", "0.001"]) == 0
    (model,) = tmp_path.rglob("model.pt")
    assert main(["prune", *flags, "--checkpoint", str(model), "--sparsity", "0.5"]) == 0
    assert main(["bench-compressors", *flags, "--size", "5000"]) == 0


def test_compressors_are_compared_on_as_many_clients_as_there_are(tmp_path: Path) -> None:
    flags = ["--dataset", tiny(tmp_path), "--clients", "2", "--logdir", str(tmp_path / "runs")]
    assert main(["bench-compressors", *flags, "--model", "mlp-small"]) == 0


BREAKS = """
import os, signal
import torch
from torch import nn

def failure():
    {failure}

class Net(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.linear = nn.Linear(input_shape[1] * input_shape[2], classes)

    def forward(self, x):
        if len(x) > 2 and self.training is {training}:  # the look before a run is at two images
            failure()
        return self.linear(x.flatten(1))
"""


def breaking(tmp_path: Path, failure: str, *, training: bool = True) -> list[str]:
    """Flags of a short run with a model whose forward pass does something fatal."""
    file = tmp_path / "net.py"
    file.write_text(BREAKS.format(failure=failure, training=training))
    flags = ["--model", f"{file}:Net", "--dataset", tiny(tmp_path), "--logdir", str(tmp_path / "runs")]
    return [*flags, "--clients", "4", "--rounds", "1", "--clients-per-round", "2", "--workers", "1"]


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


@pytest.mark.parametrize("command", ["train-central", "bench-compressors", "run"])
@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("raise ValueError('too few\\nof them')", "ValueError: too few (net.py, line 7)"),
        ("torch.zeros(2**60)", "out of memory: "),
        ("raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 9 GiB')", "out of memory: "),
        ("raise MemoryError", "out of memory: "),
    ],
)
def test_a_failure_in_the_main_process_is_one_line_and_exit_code_1_and_its_traceback_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, failure: str, told: str
) -> None:
    flags = breaking(tmp_path, failure, training=command != "run")  # clients fail by themselves; the server evaluates
    assert main([command, *flags]) == 1
    line = one_line(capsys.readouterr().err)
    assert line.startswith("fedsparse: ")
    assert told in line
    assert f"(all of it: {tmp_path / 'runs' / 'traceback.txt'})" in line
    assert "net.py" in (tmp_path / "runs" / "traceback.txt").read_text()


def test_compressors_on_updates_that_diverged_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", tiny(tmp_path), "--clients", "4", "--lr", "1e5", "--logdir", str(tmp_path)]
    assert main(["bench-compressors", *flags]) == 1
    assert "lower the learning rate" in one_line(capsys.readouterr().err)


def test_a_checkpoint_that_is_too_large_to_prune_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", tiny(tmp_path), "--logdir", str(tmp_path / "runs")]
    assert main(["train-central", *flags, "--rounds", "1"]) == 0
    (model,) = tmp_path.rglob("model.pt")
    torch.save({name: w * 1e20 for name, w in torch.load(model, weights_only=True).items()}, tmp_path / "large.pt")
    assert main(["prune", *flags, "--checkpoint", str(tmp_path / "large.pt"), "--sparsity", "0.5"]) == 1
    assert "large.pt: " in one_line(capsys.readouterr().err)


def long_temp(tmp_path: Path) -> dict[str, str]:
    """An environment whose TMPDIR is longer than the path of a socket may be, 107 characters."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    return os.environ | {"TMPDIR": str(folder)}


def run_there(tmp_path: Path, *flags: str) -> subprocess.Popen:
    few = ["--dataset", tiny(tmp_path), "--clients", "4", "--clients-per-round", "2", "--rounds", "1", "--workers", "2"]
    return shell(*few, *flags, "--logdir", str(tmp_path), env=long_temp(tmp_path))


def test_workers_start_where_the_temporary_folder_has_a_long_path(tmp_path: Path) -> None:
    _, err = (process := run_there(tmp_path)).communicate()
    assert process.returncode == 0, err


@pytest.mark.slow
def test_flowers_runtime_starts_where_the_temporary_folder_has_a_long_path(tmp_path: Path) -> None:
    _, err = (process := run_there(tmp_path, "--engine", "flower")).communicate()
    assert process.returncode == 0, err


@pytest.mark.parametrize(
    ("signal_name", "told"),
    [("SIGSEGV", "killed: Segmentation fault (net.py, line 7)"), ("SIGABRT", "killed: Aborted (net.py, line 7)")],
)
def test_a_model_that_kills_its_process_is_told_in_one_line_and_where_in_a_file(
    tmp_path: Path, signal_name: str, told: str
) -> None:
    flags = breaking(tmp_path, f"os.kill(os.getpid(), signal.{signal_name})")
    _, err = (process := shell(*flags)).communicate()
    assert process.returncode == -getattr(signal, signal_name)
    file = tmp_path / "runs" / "traceback.txt"
    assert one_line(err) == f"main.py: {told} (all of it: {file})"
    assert 'net.py", line 7 in failure' in file.read_text()


@pytest.mark.parametrize("failure", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"])
def test_a_process_that_ends_without_a_word_is_told_in_one_line(tmp_path: Path, failure: str) -> None:
    _, err = (process := shell(*breaking(tmp_path, failure))).communicate()
    assert process.returncode in (-signal.SIGKILL, 3)
    assert one_line(err).startswith("main.py: killed from outside, perhaps out of memory")


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["--densty", "1"], 2), (["partition"], 0)])
def test_nothing_is_said_about_a_command_that_ends_by_itself(tmp_path: Path, arguments: list[str], code: int) -> None:
    _, err = (process := shell(*arguments, f"--logdir={tmp_path}")).communicate()
    assert process.returncode == code
    assert "killed" not in err
