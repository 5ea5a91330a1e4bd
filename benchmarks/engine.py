"""The local engine beside a plain PyTorch loop, and beside Flower on Ray: one table.

    python -m benchmarks.engine              # some minutes
    python -m benchmarks.engine --flower     # and rounds without training on Flower's Ray simulation

CPU seconds of one thread, interleaved, medians. Unless a row says otherwise: 10 of 100 clients, 600 samples each, batch
32. The unit ``models`` is the bytes of one float32 model.
"""

import argparse
import copy
import inspect
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from benchmarks.common import Federation, machine, peak_bytes, reset_peak, write_images
from fedsparse.clients.workbench import Workbench
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.flower_run import run_flower
from fedsparse.engine.records import payload_array
from fedsparse.experiment import Experiment
from fedsparse.models import build_model
from fedsparse.strategies.server_app import federate, make_strategy
from fedsparse.telemetry.timers import StageTimer, medians
from fedsparse.training.loop import train
from fedsparse.training.stacked import TOGETHER

ROOT = Path(__file__).parents[1]
SERVER_APP = "fedsparse.strategies.server_app:app"
APP, TRAIN_TOGETHER = "fedsparse.clients.client_app:app", "fedsparse.clients.client_app:train_together"
DENSE = {"compressor": "none", "values": "f32", "error_feedback": False, "device": "cpu", "lr": 0.01}


def plain_round(config: Config) -> Callable[[], None]:
    """FedAvg in plain PyTorch: a DataLoader over each client's samples, SGD, averaged weights."""
    experiment = Experiment(config)
    data = experiment.data
    images = ((data.x_train - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)).float()
    train_set = TensorDataset(images, data.y_train)
    parts = experiment.partition
    rng = np.random.default_rng(0)
    server = build_model(experiment.model_name, data.input_shape, data.classes, config.norm, seed=0)

    def round() -> None:
        total = {name: torch.zeros_like(w) for name, w in server.state_dict().items()}
        samples = 0
        for client in rng.choice(config.clients, config.clients_per_round, replace=False):
            model = copy.deepcopy(server)
            optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
            loader = DataLoader(Subset(train_set, parts[client]), config.batch_size, shuffle=True)
            for x, y in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
            samples += len(parts[client])
            for name, w in model.state_dict().items():
                total[name] += w * len(parts[client])
        server.load_state_dict({name: w / samples for name, w in total.items()})

    return round


def training(data: str, repeats: int) -> None:
    for model in ("cnn-small", "cnn"):
        config = Config.from_mapping({"dataset": data, "model": model, **DENSE})
        with LocalGrid(APP, config.clients) as grid:
            federation = Federation(config, grid, grid.get_node_ids())
            seconds = medians({"engine": federation.round, "plain": plain_round(config)}, repeats)
        row(f"dense FedAvg, {model}, over a plain loop", seconds["engine"] / seconds["plain"], "", seconds)


def batching(data: str, repeats: int) -> None:
    for model, batch in (("mlp-small", 8), ("mlp", 32)):
        config = Config.from_mapping({"dataset": data, "model": model, "batch_size": batch, **DENSE})
        with LocalGrid(APP, config.clients, together=TRAIN_TOGETHER) as grid:
            federation = Federation(config, grid, grid.get_node_ids())

            def grouped(size: int, grid: LocalGrid = grid, federation: Federation = federation) -> None:
                grid.group = size
                federation.round()

            seconds = medians({"together": lambda: grouped(TOGETHER), "one by one": lambda: grouped(1)}, repeats)
        ratio = seconds["together"] / seconds["one by one"]
        row(f"cohort batching, {model}, batch {batch}, on over off", ratio, "", seconds)


def compression(data: str, repeats: int) -> None:
    """Seconds of one client's encode and decode over its training, for the CNN of 1.66M weights."""
    for compressor in ("topk", "hggtopk"):
        settings = {"compressor": compressor, "density": 0.01, "model": "cnn", "device": "cpu", "dataset": data}
        bench = Workbench(config := Config.from_mapping(settings))
        codec_of = bench.under_bits(b"").codec
        indices, state = bench.samples(0)[0], ClientState()
        start = bench.model.vector.clone()

        def local(bench: Any = bench, indices: Any = indices, config: Config = config) -> None:
            timer = StageTimer()
            train(bench.model, bench.fetch(indices), len(indices), config, bench.task, round=1, seed=0, timer=timer)

        local()
        update = bench.model.vector - start

        def codec(codec: UpdateCodec = codec_of, state: ClientState = state, update: torch.Tensor = update) -> None:
            codec.settle(state, state.sent_round)
            codec.decode(codec.encode(update, state, round=1, seed=0)[0])

        seconds = medians({"encode and decode": codec, "training": local}, repeats)
        ratio = 100 * seconds["encode and decode"] / seconds["training"]
        row(f"{compressor} 1 % with error feedback, encode and decode over training, cnn", ratio, " %", seconds)


def aggregation(data: str) -> None:
    """A cohort of 1,000 at 1 % of ResNet-18's 11.2M weights. Clients share eight payloads, to save memory."""
    settings = {"model": "resnet18", "norm": "group", "clients": 1000, "clients_per_round": 1000, "device": "cpu"}
    config = Config.from_mapping({**settings, "dataset": data})
    grid = LocalGrid(APP, config.clients)
    experiment = Experiment(config)
    model = experiment.model
    codec = UpdateCodec(model.layout, "topk", density=0.01, values="f16", error_feedback=False)
    payloads = [codec.encode(torch.randn(model.layout.size), ClientState(), round=1, seed=0)[0] for _ in range(8)]
    before = reset_peak()
    strategy = make_strategy(experiment, range(config.clients), grid)
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    replies = []
    for i, message in enumerate(messages):
        arrays = ArrayRecord({"update": payload_array(payloads[i % 8], model.layout)})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 10})})
        replies.append(Message(content, reply_to=message))
    began = time.process_time()
    strategy.aggregate_train(1, replies)
    seconds = time.process_time() - began
    row("aggregation of 1,000 payloads at 1 % of 11.2M weights, each", seconds, " ms", {"all": seconds})
    row("the same, peak memory", (peak_bytes() - before) / (4 * model.layout.size), " models")


def overhead(repeats: int, flower: bool) -> None:
    """Rounds without training, 199,210 weights; beside Flower by wall-clock, because Flower works in many processes."""
    config = Config.from_mapping({"model": "mlp", **DENSE, "rounds": repeats, "eval_every": repeats, "workers": 1})
    with LocalGrid("benchmarks.idle:app", config.clients) as grid:
        seconds = medians({"round": Federation(config, grid, grid.get_node_ids()).round}, repeats)["round"]
    row("a round without training, mlp (199k weights), 10 clients", 1000 * seconds, " ms")
    if flower:
        ours, theirs = _wall(config, run_local), _wall(config, run_idle_on_flower)
        row("the same on Flower's Ray simulation, wall-clock over ours", theirs / ours, " x", {"a round": theirs})


def _wall(config: Config, run: Callable[[Config], None]) -> float:
    """Median recorded seconds of a round, without the first round and the last, which is evaluated."""
    with tempfile.TemporaryDirectory() as folder:
        outfile = Path(folder) / "result.json"
        run(config.replace(logdir=folder, outfile=str(outfile)).absolute_paths())
        rounds = json.loads(outfile.read_text())["rounds"]
    if any(r.get("train/loss") for r in rounds):
        raise RuntimeError("clients have trained in rounds that were to be without training")
    return statistics.median(r["time/round"] for r in rounds if 1 < r["round"] < config.rounds)


def run_local(config: Config) -> None:
    with LocalGrid("benchmarks.idle:app", config.clients) as grid:
        federate(grid, config)


def run_idle_on_flower(config: Config) -> None:
    """Run a copy of this project as a Flower app, with `no_training` written into its client.

    Importing `benchmarks.idle` would not help, because Ray's actors load the ClientApp from the module that defines it.
    """
    from benchmarks.idle import no_training  # imported here, because from then on no client of this process trains

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in ("clients", "fedsparse", "partitions", "strategies"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        with (folder / "clients" / "client_app.py").open("a") as client:
            client.write(f"\n\n{inspect.getsource(no_training)}\n\ntrain_model = no_training\n")
        sys.path.insert(0, name)
        run_flower(config, SERVER_APP, APP)
        sys.path.remove(name)


def row(what: str, value: float, unit: str = "", details: dict[str, float] | None = None) -> None:
    more = ", ".join(f"{name} {1000 * s:.1f} ms" for name, s in (details or {}).items())
    print(f"| {what} | {value:.3g}{unit} | {more} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--flower", action="store_true", help="also time Flower's Ray simulation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as a run does
    with tempfile.TemporaryDirectory() as folder:
        data = write_images(Path(folder) / "images.npz", 60_000)
        print(f"{machine()}\n\n| what | measured | |\n|---|---|---|")
        aggregation(data)  # first, because a fresh process gives the best measure of peak memory
        training(data, arguments.repeats)
        compression(data, arguments.repeats)
        batching(data, arguments.repeats)
        overhead(10 * arguments.repeats, arguments.flower)  # last, because no client of this process trains afterwards


if __name__ == "__main__":
    main()
