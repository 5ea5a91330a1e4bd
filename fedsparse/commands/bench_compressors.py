"""Every compressor on the same real updates: time, bytes, bits, error, and how near the payload is to its bound.

    python main.py bench-compressors [--model NAME | --size N] [settings]

The updates come from a short run with these settings; with ``--size``, N heavy-tailed random numbers (Student's t, 3
degrees of freedom) in one square matrix take their place. The columns are means over clients:

    time    seconds to encode (with error feedback, if the method has it, after a first round) / seconds of torch.topk
    bits    bits of the payload / number of values in it
    error   ||x - C(x)|| / ||x||, without a residual
    bound   bytes of the payload / (log2 C(n, k) bits of indices + the bits of the value coding); no bits of indices
            when all coordinates, or a seed in their place, travel

Then each compressor at a few budgets of bytes, with the density that fills them: which have the least errors.
"""

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from fedsparse.catalogue import COMPRESSORS
from fedsparse.commands.bench_budgets import OWN_PARTS, Point, at_budgets, recommended
from fedsparse.commands.checks import checked
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.config.needs import meant
from fedsparse.config.presets import PRESETS
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError, RunFailed
from fedsparse.experiment import Experiment
from fedsparse.plugins import is_own
from fedsparse.report.bench_page import plot, write_bench_page
from fedsparse.telemetry.folder import create_run_folder
from fedsparse.telemetry.timers import StageTimer, medians
from fedsparse.training.loop import train
from fedsparse.vector import Entry, Layout

Words = tuple[str, ...]

COHORT, ROUNDS = 3, 3
HEADER: Words = ("compressor", "values", "time / topk", "bytes", "below dense", "bits", "error", "/ bound")
ADVICE: Words = ("times below dense", "bytes", "least error", "density", "error", "next", "and then")
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

    def cells(self) -> Words:
        """The row as the table shows it."""
        return (
            *(self.compressor, self.values, f"{self.time:.2f}", f"{self.bytes:.0f}", f"{self.ratio:.1f} x"),
            *(f"{self.bits:.2f}", f"{self.error:.3f}", f"{self.bound:.3f}"),
        )


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
    compression = config.replace(compressor=name, **OWN_PARTS).compression()
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


def bench_compressors(settings: Given, size: str = "", budgets: str = "10,30,100,300") -> None:
    """`main.py bench-compressors`: print the tables; save them as CSV and as a page, and a picture."""
    if size and not (size.isdecimal() and int(size)):
        raise ConfigError(f"size = {size}: should be at least 1")
    if budget := settings.get("uplink-budget"):
        raise ConfigError(f"uplink-budget = {budget}: has no effect on bench-compressors; --budgets does what you mean")
    try:
        times = sorted(float(word) for word in budgets.split(","))
        fits = times[0] >= 1 and times[-1] < math.inf
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"budgets = {budgets}: should be numbers of at least 1 with commas, such as 30,100")
    bench(checked(settings, effects=False, training="none" if size else "federated"), int(size or 0), times)


def bench(config: Config, size: int, budgets: Sequence[float]) -> None:
    """The command with checked settings; ``size`` 0 takes the updates of a run."""
    layout, updates = synthetic(size) if size else captured(config)
    source = f"{size} random numbers" if size else f"updates of {meant(config, 'model')}"
    print(f"{source}, {layout.parameters} parameters, density {config.density:g}\n")
    own = [config.compressor] if is_own(config.compressor) else []
    names = (*COMPRESSORS, *PRESETS, *own)
    print(_line(HEADER), _line(["---"] * len(HEADER)), sep="\n")
    rows, cells = [], [HEADER]
    for name in names:
        rows.append(measure(name, config, layout, updates))
        cells.append(rows[-1].cells())
        print(_line(cells[-1]), flush=True)
    print(f"\n{LEGEND}\n")
    last = [rounds[-1] for rounds in updates]
    points = [p for name in names if name != "topk" for p in at_budgets(name, config, layout, last, budgets)]
    advice = advised(points, layout, budgets)
    print("\n".join([_line(advice[0]), _line(["---"] * len(advice[0])), *map(_line, advice[1:])]))
    folder = create_run_folder(config.logdir, config.name or "compressors")
    for file, table in (("compressors.csv", [Row._fields, *rows]), ("budgets.csv", [Point._fields, *points])):
        with (folder / file).open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(table)
    curves = {name: _curve(name, points) for name in names if any(point.compressor == name for point in points)}
    plot(curves, source).savefig(folder / "compressors.png")
    tables = [("The least error at a budget", advice), (f"All at a density of {config.density:g}", cells)]
    write_bench_page(folder, f"{source}, {layout.parameters:,} parameters", curves, tables, LEGEND)
    print(f"\nsaved in {folder}")


def advised(points: Sequence[Point], layout: Layout, budgets: Sequence[float]) -> list[Words]:
    """For each budget the compressors with the least errors, with their densities; the first row is the header."""
    table = [ADVICE]
    for times in budgets:
        found = recommended(points, layout, times)
        words = [f"{times:g}", f"{4 * layout.size / times:.0f}"]
        for place, point in enumerate(found):
            density = "" if math.isnan(point.density) else f"{point.density:.3g}"
            told = f" at {density}" if density else ""
            words += (
                [f"{point.compressor} ({point.error:.3f}{told})"]
                if place
                else [point.compressor, density, f"{point.error:.3f}"]
            )
        table.append((*words, *[""] * (len(ADVICE) - len(words))))
    return table


def _curve(name: str, points: Iterable[Point]) -> tuple[list[float], list[float]]:
    """The bytes and errors of a compressor, each payload once."""
    found = sorted({(point.bytes, point.error) for point in points if point.compressor == name})
    return [x for x, _ in found], [y for _, y in found]


def _line(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"
