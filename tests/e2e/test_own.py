"""A user's own objects, named on the command line, work everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsparse.commands import main

ROOT = Path(__file__).parents[2]
SMALL = ["--rounds", "2", "--clients", "6", "--clients-per-round", "3", "--eval-every", "2", "--seed", "3"]
MINE = """
import numpy as np
import torch
from torch import nn

from fedsparse.sparsity import Topology
from fedsparse.sparsity.static import Static
from helper import HIDDEN
from fedsparse.strategies.server_optimizer import ServerOptimizer


class Net(nn.Sequential):
    def __init__(self, input_shape, classes):
        inputs = input_shape[0] * input_shape[1] * input_shape[2]
        super().__init__(nn.Flatten(), nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))


def load(data_dir):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(260, 6, 6)).astype(np.float32), rng.integers(0, 3, 260)
    images[:, 0] += labels[:, None]
    return {"x_train": images[:200], "y_train": labels[:200], "x_test": images[200:], "y_test": labels[200:],
            "clients": np.arange(200) % 6}


def other(data_dir):
    arrays = load(data_dir)
    return arrays | {"y_train": arrays["y_train"][::-1].copy()}


def halves(labels, clients, rng):
    return np.arange(len(labels)) * clients // len(labels)


class First:
    def indices(self, vector, parts, memory, seed):
        return [np.arange(start, start + k) for start, stop, k in parts]


class Median:
    def __init__(self, size, mask):
        self.updates = []

    def add(self, update, samples, mask=None):
        self.updates.append(torch.from_numpy(update.to_dense()))

    def result(self):
        return torch.stack(self.updates).median(dim=0).values


class Half(ServerOptimizer):
    def step(self, mean):
        return mean * 0.5


class Fixed(Static):
    # The first weights of each layer.

    def initial(self, layers, parameters, generator, saliency=None):
        full = Topology.full(layers, parameters)
        mask = full.mask.clone()
        for layer, count in zip(layers, self.counts(layers, self.sparsity)):
            mask[layer.start + count : layer.start + layer.size] = False
        return full.changed(mask, counts=True)


def slow_sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr / 2)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text("HIDDEN = 8\n")
    return tmp_path


def own(place: str) -> dict[str, list[str]]:
    """For every kind, flags that name the user's own object."""
    data = ["--dataset", f"{place}:load"]
    return {
        "model": ["--model", f"{place}:Net", *data],
        "dataset": ["--model", "mlp-small", *data, "--distribution", "natural"],
        "distribution": ["--distribution", f"{place}:halves", "--model", "mlp-small", *data],
        "compressor": ["--compressor", f"{place}:First", "--model", "mlp-small", *data],
        "downlink": ["--downlink-compressor", f"{place}:First", "--model", "mlp-small", *data],
        "aggregator": ["--aggregator", f"{place}:Median", "--model", "mlp-small", *data],
        "strategy": ["--strategy", f"{place}:Half", "--model", "mlp-small", *data],
        "topology": ["--topology", f"{place}:Fixed", "--sparsity", "0.5", "--dense-layers", "", *data],
        "optimizer": ["--optimizer", f"{place}:slow_sgd", "--model", "mlp-small", *data],
    }


def shell(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fedsparse", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def result_in(logdir: Path) -> dict:
    (file,) = logdir.glob("*/result.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize("kind", own(""))
def test_each_kind_runs_and_changes_the_result(mine: Path, kind: str) -> None:
    flags = own(str(mine / "mine.py"))[kind]
    assert main([*SMALL, *flags, "--workers", "1", "--logdir", str(mine / "own")]) == 0
    plain = flags[2:]
    if kind == "dataset":
        plain = ["--model", "mlp-small", "--dataset", f"{mine / 'mine.py'}:other", "--distribution", "natural"]
    if kind == "topology":
        plain = ["--topology", "static", *flags[2:]]
    assert main([*SMALL, *plain, "--workers", "1", "--logdir", str(mine / "plain")]) == 0
    hashes = [result_in(mine / folder)["summary"]["weights-hash"] for folder in ("own", "plain")]
    assert hashes[0] != hashes[1]


def test_own_objects_work_together_with_workers_from_any_folder_as_file_and_as_module(
    mine: Path, tmp_path: Path
) -> None:
    everything = {"model": "Net", "dataset": "load", "compressor": "First", "aggregator": "Median", "strategy": "Half"}
    hashes = set()
    for place, workers in (("mine.py", "1"), ("mine", "2"), (str(mine / "mine.py"), "2")):
        flags = [word for key, name in everything.items() for word in (f"--{key}", f"{place}:{name}")]
        logdir = tmp_path / f"runs-{len(hashes)}-{workers}-{place.replace('/', '')[-9:]}"
        done = shell(mine, *SMALL, *flags, "--distribution", "natural", "--workers", workers, "--logdir", str(logdir))
        assert done.returncode == 0, done.stderr
        hashes.add(result_in(logdir)["summary"]["weights-hash"])
    assert len(hashes) == 1


def test_a_run_folders_config_runs_again_from_another_folder(mine: Path, tmp_path: Path) -> None:
    flags = own("mine.py")["compressor"]
    assert shell(mine, *SMALL, *flags, "--logdir", "first").returncode == 0
    (folder,) = (mine / "first").iterdir()
    again = shell(tmp_path.parent, "--config", str(folder / "config.yaml"), "--logdir", str(tmp_path / "again"))
    assert (again.returncode, again.stderr) == (0, "")
    first, second = (result_in(logdir)["summary"]["weights-hash"] for logdir in (mine / "first", tmp_path / "again"))
    assert first == second


def test_a_sweep_can_compare_an_own_compressor_with_the_catalogues(mine: Path) -> None:
    (mine / "grid.yaml").write_text(
        "base: {dataset: 'mine.py:load', model: mlp-small, rounds: 2, clients: 6, clients-per-round: 3}\n"
        "grid: {compressor: [topk, 'mine.py:First']}\n"
    )
    done = shell(mine, "sweep", "grid.yaml", "--logdir", "runs")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 cells" in done.stdout
    assert "mine.py:First" in (mine / "runs" / "grid" / "table.csv").read_text()


@pytest.mark.slow
def test_own_objects_give_the_same_bits_on_flowers_runtime(mine: Path) -> None:
    flags = [*own("mine.py")["model"], "--compressor", "mine.py:First", "--distribution", "natural"]
    for engine in ("local", "flower"):
        done = shell(mine, *SMALL, *flags, "--engine", engine, "--logdir", engine)
        assert done.returncode == 0, done.stdout + done.stderr
    local, flower = (result_in(mine / engine)["summary"]["weights-hash"] for engine in ("local", "flower"))
    assert local == flower


def test_a_model_may_do_what_the_meta_device_cannot_and_be_in_a_package(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "layers.py").write_text("UNITS = 4\n")
    (tmp_path / "pkg" / "models.py").write_text(
        "import numpy as np\nimport torch\nfrom torch import nn\n\nfrom .layers import UNITS\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, input_shape, classes, width=UNITS):\n"
        "        super().__init__()\n"
        "        self.register_buffer('scale', torch.from_numpy(np.ones(1, np.float32)))\n"
        "        self.inside = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, classes))\n"
        "    def forward(self, x):\n"
        "        return self.inside(x * self.scale) * (1 if x.abs().max() > 1e6 else 2)\n"
    )
    for place in ("pkg.models", "pkg/models.py"):
        done = shell(tmp_path, *SMALL, "--model", f"{place}:Net", "--logdir", place.replace("/", "."))
        assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / place.replace("/", ".")).iterdir()
        assert (folder / "model.pt").is_file()


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    script = (
        "import fedsparse, os, pathlib\n"
        "for width in (3, 5):\n"
        "    pathlib.Path('net.py').write_text(\n"
        "        'from torch import nn\\ndef net(input_shape, classes):\\n    return nn.Sequential(nn.Flatten(), '\n"
        "        f'nn.Linear(784, {width}), nn.Linear({width}, classes))\\n')\n"
        "    result = fedsparse.run(model='net.py:net', rounds=1, clients=4, clients_per_round=2, workers=2)\n"
        "    print('WIDTH', result.model()[1].out_features)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = {"capture_output": True, "text": True, "timeout": 240}
    done = subprocess.run([sys.executable, "-"], input=script, cwd=tmp_path, env=environment, **options)
    widths = [line for line in done.stdout.splitlines() if line.startswith("WIDTH")]
    assert widths == ["WIDTH 3", "WIDTH 5"], done.stderr


VOTING = """
from fedsparse.aggregation.mean import Mean


class Voting:
    def __init__(self, size, mask):
        self.mean = Mean(size, mask)

    def add(self, update, samples, mask=None):
        self.mean.add(update, samples, mask)

    def votes(self, old):
        return self.mean.votes(old)

    def result(self):
        return self.mean.result()
"""


def test_an_own_aggregator_with_votes_lets_the_topology_follow_the_clients_as_the_mean_does(tmp_path: Path) -> None:
    (tmp_path / "voting.py").write_text(VOTING)
    dynamic = ["--topology", "feddst", "--sparsity", "0.5", "--readjustment-interval", "1"]
    dynamic += ["--dense-layers", "", "--model", "mlp-small"]
    for name, flags in (("mean", []), ("own", ["--aggregator", f"{tmp_path / 'voting.py'}:Voting"])):
        assert main([*SMALL, *dynamic, *flags, "--workers", "1", "--logdir", str(tmp_path / name)]) == 0
    mean, own = (result_in(tmp_path / name) for name in ("mean", "own"))
    assert own["summary"]["weights-hash"] == mean["summary"]["weights-hash"]
    assert own["rounds"][1]["topology/changed"] > 0


def test_an_own_compressor_is_compared_with_ours_and_no_error_is_nan(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", "mlp-small", "--rounds", "2", "--compressor", f"{mine / 'mine.py'}:First"]
    assert main(["bench-compressors", *flags, "--logdir", str(mine / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "mine.py:First |" in shown
    assert "nan" not in shown
