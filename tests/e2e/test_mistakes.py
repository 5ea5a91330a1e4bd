"""What goes wrong is one line, never a traceback."""

import json
import resource
from pathlib import Path

import pytest
import torch

from fedsparse.commands import main
from tests.e2e.as_user import SMALL, shell


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--densty", "0.1"], "unknown setting --densty; did you mean --density?"),
        (["--density", "0"], "density = 0: should be greater than 0"),
        (["--beta", "-1"], "beta = -1: should be greater than 0"),
        (["--beta"], "argument --beta: expected one argument"),
        (["--clients", "5"], "clients-per-round = 10 is more than clients = 5"),
        (["--config", "nowhere.yaml"], "cannot read config file nowhere.yaml"),
        (["--config", "/dev/full"], "cannot read config file /dev/full: it is no regular file"),
        (["--topology", "rigl"], "topology = rigl with sparsity = 0"),
        (["--dataset", "nowhere.npz"], "nowhere.npz"),
        (["--dataset", "imagenet"], "imagenet"),
        (["--device", "cuda:7"], "device = cuda:7"),
        (["--logdir", "/proc/nowhere"], "logdir = /proc/nowhere"),
        (["--outfile", "/nowhere/out.json"], "/nowhere"),
        (["--clients", "20000", "--clients-per-round", "5"], "20000 clients"),
        (["partition", "--clients", "20000"], "20000 clients"),
        (["--name", "a/b"], "name = a/b: should be"),
        (["--outfile", "/dev/null"], "is no regular file"),
        (["train"], "unknown command 'train'"),
        (["run", "now"], "unrecognized arguments: now"),
        (["run", "--jobs", "2"], "--jobs belongs to sweep and compare-all, not to run"),
        (["sweep"], "sweep needs a FILE: fedsparse sweep FILE"),
        (["sweep", "nowhere.yaml"], "cannot read config file nowhere.yaml"),
        (["sweep", "configs/quick-test.yaml"], "unknown part"),
        (["sweep", "configs/ablation-compression.yaml", "--jobs", "0"], "jobs = 0: should be auto or at least 1"),
        (["report"], "report needs a RUN_FOLDER..."),
        (["report", "nowhere"], "there is no run folder nowhere"),
        (["report", "configs"], "configs holds no result.json"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if flags == ["--device", "cuda:7"] and torch.cuda.device_count() > 7:
        pytest.skip("this machine has that GPU")
    assert main(flags) == 2
    shown = capsys.readouterr()
    assert line in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err + shown.out


def test_a_closed_output_pipe_is_no_error() -> None:
    with shell("--help") as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""


def test_a_yaml_file_with_a_typo_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "typo.yaml").write_text("clients-per-ronud: 4\n")
    assert main(["--config", str(tmp_path / "typo.yaml")]) == 2
    assert "did you mean clients-per-round?" in capsys.readouterr().err


def test_a_key_given_twice_in_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "twice.yaml").write_text("clients-per-round: 4\nrounds: 3\nclients_per_round: 5\n")
    assert main(["--config", str(tmp_path / "twice.yaml")]) == 2
    shown = capsys.readouterr().err
    assert "clients-per-round is given twice" in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("limit", [30_000, 100_000])
def test_a_full_disk_is_one_line_after_the_rounds_so_far(tmp_path: Path, limit: int) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = shell(*SMALL, "--workers", "1", "--logdir", str(tmp_path), preexec_fn=small_files)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    line = err.splitlines()[-1]
    assert line.startswith("main.py: cannot write ")
    assert str(tmp_path) in line
    assert "Traceback" not in err
    assert "accuracy" in out or limit < 50_000  # the picture of the partition does not fit
    assert "written to" not in out
    assert not list(tmp_path.rglob("*.part"))


def test_training_that_diverges_names_client_and_layer_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--workers", "1", "--lr", "1e6", "--epochs", "9", "--logdir", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "client" in shown
    assert "'0.weight' has NaN or infinity" in shown
    (result,) = tmp_path.rglob("result.json")
    summary = json.loads(result.read_text())["summary"]
    assert (summary["ended"], summary["diverged"]) == ("failed", True)
