"""Every compressor on the same real updates: time, bytes, bits, error, and how near the payload is to its bound.

    python main.py bench-compressors [--model NAME | --size N] [settings]

The updates come from a short run with these settings; with ``--size``, N heavy-tailed random numbers (Student's t, 3
degrees of freedom) in one square matrix take their place. The columns are means over clients:

    time    seconds to encode (with error feedback, if the method has it, after a first round) / seconds of torch.topk
    bits    bits of the payload / number of values in it
    error   ||x - C(x)|| / ||x||, without a residual
    bound   bytes of the payload / (log2 C(n, k) bits of indices + the bits of the value coding); no bits of indices
            when all coordinates, or a seed in their place, travel
"""

import csv
import math
import statistics
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from fedsparse.catalogue import COMPRESSORS
from fedsparse.commands.checks import checked
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.config.presets import PRESETS
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.experiment import Experiment
from fedsparse.plugins import is_own
from fedsparse.telemetry.folder import create_run_folder
from fedsparse.telemetry.timers import StageTimer, medians
from fedsparse.training.loop import train
from fedsparse.vector import Entry, Layout

COHORT, ROUNDS = 3, 3
LEGEND = """\
time / topk  seconds to encode, with error feedback, over torch.topk's alone
bits         of the payload, for each value in it
error        ||x - C(x)|| / ||x|| of one payload
/ bound      bytes over those of log2 C(n, k) bits of indices and the values; real indices cluster, and take fewer"""


class Row(NamedTuple):
    compressor: str
    values: str
    time: float
    bytes: float
    ratio: float
    bits: float
    error: float
    bound: float


def captured(config: Config) -> tuple[Layout, list[list[np.ndarray]]]:
    """The updates of a few clients over a few rounds of federated averaging: float32, ``[client][round]``.

    Raises:
        RunFailed: an update has NaN or infinity.
    """
    torch.manual_seed(config.seed)
    config = config.replace(rounds=max(config.rounds, ROUNDS))  # because a schedule may end at a learning rate of 0
    experiment = Experiment(config)
    model, task = experiment.model, experiment.task
    weights, seen = model.vector.clone(), [list[np.ndarray]() for _ in range(min(COHORT, config.clients))]
    for round in range(1, ROUNDS + 1):
        for client in range(len(seen)):
            model.vector.copy_(weights)
            indices, _ = experiment.samples(client)
            fetch, timer = experiment.fetch(indices), StageTimer()
            train(model, fetch, len(indices), config, task, round=round, seed=client, timer=timer)
            update = model.vector - weights
            if not update.isfinite().all():
                raise RunFailed(f"round {round}: the update of client {client} diverged; lower the learning rate")
            seen[client].append(update.cpu().numpy())
        mean = np.mean([updates[-1] for updates in seen], axis=0)
        weights += torch.from_numpy(mean).to(weights)
    return model.layout, seen


def synthetic(size: int) -> tuple[Layout, list[list[np.ndarray]]]:
    """Updates of random numbers, in the same form as :func:`captured` gives."""
    side = math.isqrt(size)
    matrix = Entry("matrix", (side, size // side), 0, side * (size // side))
    rest = Entry("rest", (size - matrix.size,), matrix.size, size - matrix.size)
    entries = (matrix, rest) if rest.size else (matrix,)
    rng = np.random.default_rng(0)
    updates = [[rng.standard_t(3, size).astype(np.float32) for _ in range(ROUNDS)] for _ in range(COHORT)]
    return Layout(entries, size, size), updates


def measure(name: str, config: Config, layout: Layout, updates: list[list[np.ndarray]]) -> Row:
    """One compressor's row of the table."""
    own = {"compressor": name, "values": "auto", "error-feedback": "auto", "unbiased": "auto"}
    compression = config.replace(**own).compression()
    codec, n = UpdateCodec(layout, **compression), layout.parameters
    lengths, bits, errors, bounds, times = [], [], [], [], []
    for client, rounds in enumerate(updates):
        update = rounds[-1]
        payload, stats = codec.encode(update, ClientState(), round=1, seed=client)
        received = codec.decode(payload).to_dense()
        k = max(1, round(stats["density"] * n))
        values = codec.values.size(np.array([k]))
        indexed = codec.factorization is None and name != "randomk" and k < n
        entropy = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) if indexed else 0.0
        lengths.append(len(payload))
        bits.append(8 * (len(payload) - 4 * (layout.size - n)) / k)
        errors.append(float(np.linalg.norm((received - update)[:n]) / np.linalg.norm(update[:n])))
        bounds.append(len(payload) / (entropy / 8 + values + 4 * (layout.size - n)))
        state, turn = ClientState(), [0]

        def encode(rounds: list[np.ndarray] = rounds, state: ClientState = state, turn: list[int] = turn) -> None:
            turn[0] += 1
            codec.settle(state, turn[0] - 1)
            codec.encode(rounds[turn[0] % len(rounds)], state, round=turn[0], seed=turn[0])

        x, wanted = torch.from_numpy(update), max(1, round(config.density * n))

        def topk(x: torch.Tensor = x, k: int = wanted) -> None:
            torch.topk(x.abs(), k)

        seconds = medians({"topk": topk, "encode": encode}, repeats=3)
        times.append(seconds["encode"] / seconds["topk"])
    means = [statistics.mean(column) for column in (times, lengths, bits, errors, bounds)]
    return Row(name, compression["values"], means[0], means[1], 4 * layout.size / means[1], *means[2:])


def bench_compressors(settings: Given, size: str = "") -> None:
    """`main.py bench-compressors`: print the table; save it as CSV, and error against bytes as a picture."""
    if size and not (size.isdecimal() and int(size)):
        raise ConfigError(f"size = {size}: should be at least 1")
    if budget := settings.get("uplink-budget"):
        raise ConfigError(f"uplink-budget = {budget}: compressors are compared at one density; leave it out")
    bench(checked(settings, effects=False, training="none" if size else "federated"), int(size or 0))


def bench(config: Config, size: int) -> None:
    """The command with checked settings; ``size`` 0 takes the updates of a run."""
    layout, updates = synthetic(size) if size else captured(config)
    source = f"{size} random numbers" if size else f"updates of {config.model}"
    print(f"{source}, {layout.parameters} parameters, density {config.density:g}\n")
    print("| compressor | values | time / topk | bytes | below dense | bits | error | / bound |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    own = [config.compressor] if is_own(config.compressor) else []
    for name in (*COMPRESSORS, *PRESETS, *own):
        row = measure(name, config, layout, updates)
        rows.append(row)
        print(
            f"| {row.compressor} | {row.values} | {row.time:.2f} | {row.bytes:.0f} | {row.ratio:.1f} x "
            f"| {row.bits:.2f} | {row.error:.3f} | {row.bound:.3f} |",
            flush=True,
        )
    print(f"\n{LEGEND}")
    folder = create_run_folder(config.logdir, "compressors")
    with (folder / "compressors.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Row._fields, *rows])
    plot(rows, source).savefig(folder / "compressors.png", dpi=120)
    print(f"\nsaved in {folder}")


def plot(rows: list[Row], source: str) -> Figure:
    """Error against bytes, one point a compressor."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    places: dict[tuple[float, float], list[Row]] = {}  # rows that nearly coincide share a label
    for row in rows:
        places.setdefault((round(math.log10(row.bytes), 1), round(row.error, 1)), []).append(row)
    for together in places.values():
        first, names = together[0], ", ".join(row.compressor for row in together)
        axes.plot([row.bytes for row in together], [row.error for row in together], "o")
        axes.annotate(names, (first.bytes, first.error), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.set(xscale="log", xlabel="payload, bytes", ylabel="relative error of one payload", title=source)
    axes.grid(alpha=0.3)
    return figure
