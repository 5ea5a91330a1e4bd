"""fedsparse.run in scripts, in notebooks and from standard input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fedsparse

ROOT = Path(__file__).parents[1]
SMALL = {"rounds": 2, "clients": 6, "clients_per_round": 3, "eval_every": 1, "model": "mlp-small"}

SCRIPT = """
import fedsparse
from torch import nn

class Mine(nn.Sequential):
    def __init__(self, input_shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], classes))

def first_comes_first(labels, clients, rng):
    return [i * clients // len(labels) for i in range(len(labels))]

result = fedsparse.run(
    model=Mine, distribution=first_comes_first, rounds=1, clients=6, clients_per_round=3, workers=2, logdir="runs"
)
print("RESULT", result.summary["rounds"], type(result.model()).__name__)
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_a_run_gives_its_rounds_its_summary_its_folder_and_its_model(tmp_path: Path) -> None:
    result = fedsparse.run(**SMALL, logdir=str(tmp_path), workers=1)
    assert [row["round"] for row in result.rounds] == [0, 1, 2]
    assert result.summary["accuracy"] == result.rounds[-1]["eval/accuracy"]
    assert (result.folder / "rounds.csv").is_file()
    weights = sum(p.numel() for p in result.model().parameters())
    assert weights == 25_450
    assert result.config.clients == 6
    assert "accuracy" in repr(result)


def test_frame_is_the_rounds_as_a_table(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = fedsparse.run(**SMALL, logdir=str(tmp_path), workers=1).frame()
    assert list(frame.index) == [0, 1, 2]
    assert frame["eval/accuracy"].notna().all()


def test_settings_may_be_a_mapping_and_keywords_override_it(tmp_path: Path) -> None:
    settings = {"clients-per-round": 2, "rounds": 1} | {k: v for k, v in SMALL.items() if k not in ("rounds",)}
    result = fedsparse.run(settings, clients_per_round=4, logdir=str(tmp_path), workers=1)
    assert (result.config.rounds, result.config.clients_per_round) == (1, 4)


@pytest.mark.parametrize("way", ["script", "standard input"])
def test_own_objects_reach_several_workers_without_a_main_guard(tmp_path: Path, way: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"] if way == "script" else [sys.executable, "-"]
    options = {"capture_output": True, "text": True, "timeout": 240, "cwd": tmp_path, "env": environment()}
    done = subprocess.run(command, input=SCRIPT if way == "standard input" else None, **options)
    assert "RESULT 1 Mine" in done.stdout, done.stderr
    assert done.stdout.count("RESULT") == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"densty": 0.1}, "unknown setting densty; did you mean density?"),
        ({"beta": 0.3, "distribution": "iid"}, "beta = 0.3 has no effect: it needs distribution = dirichlet"),
        ({"model": 3}, "model = 3: should be a name, a reference, or a class or function"),
        ({"model": lambda input_shape, classes: 3}, "should give a torch.nn.Module, not int"),
    ],
)
def test_a_mistake_is_a_config_error_of_one_line(tmp_path: Path, settings: dict, line: str) -> None:
    with pytest.raises(fedsparse.ConfigError) as error:
        fedsparse.run(settings | {"logdir": str(tmp_path)}, **settings)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["sweep", "--help"], 0),
        (["--version"], 0),
        (["--densty", "0.1"], 2),
        (["--density", "7"], 2),
        (["--model", "resnet8"], 2),
        (["--compressor", "lowrank", "--values", "sign"], 2),
        (["--beta", "0.5"], 2),
        (["partition", "--clients", "x"], 2),
        (["--config", "bad.yaml"], 2),
        (["sweep", "bad.yaml"], 2),
    ],
)
def test_help_a_version_and_a_mistake_are_told_without_torch(tmp_path: Path, arguments: list[str], code: int) -> None:
    (tmp_path / "bad.yaml").write_text("densty: 1\n")
    command = [sys.executable, "-X", "importtime", "-m", "fedsparse", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == code
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "pydantic" in imported
    assert not imported & {"torch", "flwr", "matplotlib", "torchvision", "scipy"}


def test_importing_fedsparse_imports_no_torch() -> None:
    code = "import sys, fedsparse; fedsparse.Config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_an_unknown_name_of_the_package_is_named() -> None:
    with pytest.raises(AttributeError, match="fedsparse has no 'rum'; it has"):
        fedsparse.rum  # noqa: B018
