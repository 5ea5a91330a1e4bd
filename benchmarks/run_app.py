"""`run-app` beside `flwr run` (Ray) on one Flower app: seconds to start, seconds a round, and whether bits come again.

    python -m benchmarks.run_app              # some minutes

The app is written by this file: FedAvg, a perceptron of 101,760 weights, 600 random samples a client, 10 clients of 20
train and all evaluate in a round. Interleaved, medians. Start is from the command to the first round. CPU seconds are
those of all processes of a run, which other work on the machine changes less than wall-clock. Linux only.
"""

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from benchmarks.common import machine
from fedsparse.config.run_settings import core_count
from fedsparse.engine.flower_run import flwr_run, superlink

NODES, ROUNDS = 20, 10
MARK = "at round"

PYPROJECT = f"""
[project]
name = "benchmark"
version = "1.0"
[tool.flwr.app]
publisher = "fedsparse"
[tool.flwr.app.components]
serverapp = "apps:server"
clientapp = "apps:client"
[tool.flwr.app.config]
rounds = {ROUNDS}
"""
APPS = """
import contextlib
import hashlib
import os
import time
from pathlib import Path
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from torch.nn import functional as F

torch.set_num_threads(1)
client = ClientApp()
server = ServerApp()

def network():
    return torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10, bias=False))

def samples(context):
    generator = torch.Generator().manual_seed(context.node_config["partition-id"])
    x = torch.randn(600, 784, generator=generator)
    return x, (x[:, :10] + x[:, 10:20]).argmax(1)

@client.train()
def train(message, context):
    model, (x, y) = network(), samples(context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in torch.randperm(600).split(32):
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": 600})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)

@client.evaluate()
def evaluate(message, context):
    model, (x, y) = network(), samples(context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    accuracy = float((model(x).argmax(1) == y).float().mean())
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 600, "accuracy": accuracy})}), reply_to=message)

def cpu_seconds():
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"FEDSPARSE_BENCHMARK=1" in (folder / "environ").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")

@server.main()
def main(grid, context):
    def note(round, arrays):
        digest = hashlib.sha256(b"".join(array.data for array in arrays.values())).hexdigest()[:16]
        print("at round", round, time.time(), cpu_seconds(), digest, flush=True)
    arrays = ArrayRecord(network().state_dict())
    FedAvg(fraction_train=0.5).start(grid, arrays, num_rounds=context.run_config["rounds"], evaluate_fn=note)
"""


def on_ray(app: Path) -> tuple[float, list[str]]:
    """When the command was given, and what it printed."""
    began = time.time()
    with superlink() as (_, environment):
        resources = {"num-supernodes": NODES, "client-resources-num-cpus": 1, "init-args-num-cpus": core_count()}
        with contextlib.redirect_stdout(io.StringIO()):
            return began, flwr_run(app, environment, resources)


def by_run_app(app: Path, workers: int) -> tuple[float, list[str]]:
    command = [sys.executable, "-m", "fedsparse", "run-app", str(app), "--num-supernodes", str(NODES)]
    command += ["--workers", str(workers), "--logdir", str(app.parent / "runs")]
    began = time.time()
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=os.environ)
    return began, done.stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    cores = core_count()
    ways: dict[str, Callable[[Path], tuple[float, list[str]]]] = {
        "`run-app`, in one process": lambda app: by_run_app(app, 1),
        f"`run-app --workers {cores}`": lambda app: by_run_app(app, cores),
        f"`flwr run`, Ray on {cores} cores": on_ray,
    }
    os.environ["FEDSPARSE_BENCHMARK"] = "1"
    measured: dict[str, list[tuple[float, float, float, str]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"
        app.mkdir()
        (app / "pyproject.toml").write_text(PYPROJECT)
        (app / "apps.py").write_text(APPS)
        for _ in range(repeats):
            for name, way in ways.items():
                began, lines = way(app)
                noted = [line.split(MARK, 1)[1].split() for line in lines if MARK in line]
                times, cpu = ([float(words[column]) for words in noted] for column in (1, 2))
                rounds = [statistics.median(b - a for a, b in pairwise(values)) for values in (times, cpu)]
                measured[name].append((times[0] - began, *rounds, noted[-1][3]))
    print(f"{machine()}\n\n| | start | a round | CPU of a round | different results of {repeats} |")
    print("|---|---:|---:|---:|---:|")
    for name, values in measured.items():
        start, wall, cpu = (statistics.median(value[i] for value in values) for i in range(3))
        print(f"| {name} | {start:.1f} s | {wall:.2f} s | {cpu:.2f} s | {len({value[-1] for value in values})} |")


if __name__ == "__main__":
    main()
