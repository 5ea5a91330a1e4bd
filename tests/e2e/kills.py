"""Kills runs with SIGKILL at chosen or random moments, resumes them, and compares them with undisturbed runs.

    python -m tests.e2e.kills FOLDER KILLS SEED [WORKERS]

prints a line a kill; with "each" for KILLS, one kill of each job, at different moments. Each run is a fork of this
process, which has imported everything.
"""

import csv
import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from itertools import cycle
from pathlib import Path

import numpy as np

import fedsparse.checkpoint
import fedsparse.clients.client_app
import fedsparse.files
import fedsparse.strategies.fedavg
import fedsparse.strategies.round_end
from fedsparse.commands import main
from fedsparse.engine import fork_server

SPARSE = ["--sparsity", "0.5", "--dense-layers", "last", "--topology"]
ENSEMBLE = ["--distill", "ensemble", "--distill-samples", "50", "--distill-steps", "3"]
JOBS = {
    "hggtopk": ["--cohort-batching", "off"],
    "dgc": ["--compressor", "dgc", "--optimizer", "adamw", "--keep-moments"],
    "powersgd": ["--compressor", "powersgd"],
    "few-bits": ["--weight-bits", "2", "--activation-bits", "8", "--float-layers", "first", "--eval-clients"],
    "downlink": ["--downlink-compressor", "topk", "--downlink-density", "0.01", "--eval-clients"],
    "feddst": [*SPARSE, "feddst", "--readjustment-interval", "2"],
    "rigl": [*SPARSE, "rigl", "--growth", "momentum", "--readjustment-interval", "1", "--readjustment-end", "8"],
    "ssfl": [*SPARSE, "ssfl"],
    "private": ["--dp-noise", "1", "--compressor", "topk", "--sparsity", "0.5", "--dense-layers", "last"],
    "depths": ["--exits", "1", "--depths", "uniform:1:2", "--model", "mlp"],
    "ensemble": ENSEMBLE,
    "fedadam": ["--strategy", "fedadam", "--residual-dtype", "bf16"],
    "secure": ["--secure-aggregation", "--compressor", "randomk", "--shared-support", "--density", "0.3"],
    "budget": ["--uplink-budget", "20kB"],
    "sizes": [*ENSEMBLE, "--client-models", "mlp-small,mlp:2", "--strategy", "fedavgm"],
}
SMALL = ["--clients", "6", "--clients-per-round", "3", "--rounds", "8", "--eval-every", "2", "--model", "mlp-small"]
SMALL += ["--checkpoint-every", "2", "--batch-size", "8"]

MOMENTS: dict[str, tuple[object, str]] = {
    "train": (fedsparse.clients.client_app, "train_model"),
    "encode": (fedsparse.clients.client_app, "encode_update"),
    "aggregate": (fedsparse.strategies.fedavg.FedAvg, "_step"),
    "evaluate": (fedsparse.strategies.round_end, "evaluate"),
    "write": (fedsparse.checkpoint, "save_file"),
    "rename": (fedsparse.files.os, "replace"),
}
"""The functions at whose entry a run may kill itself."""


def forked(act: Callable[[], int], log: Path, seconds: float | None = None) -> int:
    """The exit status of ``act`` in a process of its own, which is killed after so many seconds."""
    child = os.fork()
    if not child:
        with log.open("a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.setsid()
            code = 99
            with suppress(SystemExit):
                code = act()
            sys.stdout.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying(moment: str, call: int, act: Callable[[], int]) -> Callable[[], int]:
    """``act``, which kills its process when the function of the moment is called for the ``call``-th time."""
    place, name = MOMENTS[moment]
    original, calls = getattr(place, name), [0]

    def fatal(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    def changed() -> int:
        setattr(place, name, fatal)
        return act()

    return changed


def outcome(folder: Path) -> tuple[str, list[dict[str, str]]]:
    """The hash of the final weights, and the rows of rounds.csv without seconds and memory."""
    result = json.loads((folder / "result.json").read_text())
    assert result["summary"]["ended"] == "complete", folder
    with (folder / "rounds.csv").open() as file:
        rows = [
            {key: value for key, value in row.items() if not key.startswith(("time/", "system/"))}
            for row in csv.DictReader(file)
        ]
    return result["summary"]["weights-hash"], rows


class Runs:
    """Runs of one data set in one folder; ``references`` are those that were not killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        rng = np.random.default_rng(0)
        images, labels = rng.random((200, 10, 10), np.float32), rng.integers(0, 4, 200)
        np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images[:50], y_test=labels[:50])
        self.references: dict[tuple[str, ...], tuple[str, list[dict[str, str]]]] = {}
        self.seconds: dict[tuple[str, ...], float] = {}
        self.count = 0

    def warm_up(self) -> None:
        """Run once in this process, so that its forks need not load and initialise everything again."""
        fork_server.start = lambda modules: None  # because a fork of this process cannot use its fork server
        flags = self.flags("hggtopk", "--workers", "1")
        with redirect_stdout(io.StringIO()):
            assert main(flags) == 0

    def flags(self, job: str, *more: str) -> list[str]:
        self.count += 1
        place = ["--dataset", str(self.folder / "data.npz"), "--logdir", str(self.folder / f"{self.count}")]
        return [*SMALL, *JOBS[job], *place, *more]

    def reference(self, job: str, *more: str) -> tuple[str, list[dict[str, str]]]:
        if (job, *more) not in self.references:
            flags, began = self.flags(job, *more), time.monotonic()
            assert forked(lambda: main(flags), self.log) == 0, self.log.read_text()
            self.seconds[job, *more] = time.monotonic() - began
            self.references[job, *more] = outcome(self.run_folder())
        return self.references[job, *more]

    def run_folder(self) -> Path:
        (folder,) = (path for path in (self.folder / f"{self.count}").iterdir() if path.is_dir())
        return folder

    def killed_and_resumed(
        self, job: str, *more: str, kill: Callable[[list[str]], int]
    ) -> tuple[str, list[dict[str, str]]]:
        """What comes of a run that ``kill`` starts with some flags, once it is resumed to its end."""
        flags = self.flags(job, *more)
        status = kill(flags)
        if status == 0:  # it ended before it was killed
            return outcome(self.run_folder())
        assert status == -signal.SIGKILL, (status, self.log.read_text())
        logdir = self.folder / f"{self.count}"
        if not list(logdir.glob("*/config.yaml")):  # it was killed before there was a run
            assert forked(lambda: main(flags), self.log) == 0, self.log.read_text()
        else:
            folder = str(self.run_folder())
            assert forked(lambda: main(["--resume", folder]), self.log) == 0, self.log.read_text()
        folders = [path for path in logdir.iterdir() if (path / "result.json").exists()]
        return outcome(folders[0])


def each_kind(folder: Path) -> int:
    """Kill a run of each job once, after its first checkpoint; returns how many did not end as they should."""
    runs, wrong = Runs(folder), 0
    runs.warm_up()
    for number, (job, moment) in enumerate(zip(JOBS, cycle(MOMENTS), strict=False)):
        call = {"train": 14, "encode": 14, "aggregate": 5, "evaluate": 4, "write": 4, "rename": 40}[moment]
        more = ["--workers", "1", "--state-store", ("context", "files")[number % 2]]

        def kill(flags: list[str], moment: str = moment, call: int = call) -> int:
            status = forked(dying(moment, call, lambda: main(flags)), runs.log)
            assert status == -signal.SIGKILL, (moment, runs.log.read_text())
            assert (runs.run_folder() / "model.pt").exists()  # of the last checkpoint
            return status

        same = runs.killed_and_resumed(job, *more, kill=kill) == runs.reference(job, *more)
        wrong += not same
        assert runs.log.read_text().count("goes on after round") == number + 1
        print(f"{job} {' '.join(more)} at {moment} {call}: {'equal' if same else 'DIFFERENT'}", flush=True)
    return wrong


def random_kills(folder: Path, kills: int, seed: int, workers: str) -> int:
    """Kill so many runs at random moments; returns how many did not end as the undisturbed run."""
    runs, rng, wrong = Runs(folder), random.Random(seed), 0
    if workers == "1":
        runs.warm_up()
    for number in range(kills):
        job, store = rng.choice(sorted(JOBS)), rng.choice(["context", "files"])
        more = ["--workers", workers, "--state-store", store]
        expected = runs.reference(job, *more)
        lasted = runs.seconds[job, *more]
        if rng.random() < 0.5 or workers != "1":
            seconds = rng.uniform(0.0, lasted)
            what = f"after {seconds:.2f} s"

            def kill(flags: list[str], seconds: float = seconds) -> int:
                return forked(lambda: main(flags), runs.log, seconds)
        else:
            moment, call = rng.choice(sorted(MOMENTS)), rng.randint(1, 8)
            what = f"at {moment} {call}"

            def kill(flags: list[str], moment: str = moment, call: int = call) -> int:
                return forked(dying(moment, call, lambda: main(flags)), runs.log)

        got = runs.killed_and_resumed(job, *more, kill=kill)
        same = got == expected
        wrong += not same
        print(
            f"{number + 1:>3} {job:<9} {store:<8} workers {workers} {what:<16} {'equal' if same else 'DIFFERENT'}",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    place, kills, seed, *rest = sys.argv[1:]
    Path(place).mkdir(parents=True, exist_ok=True)
    if kills == "each":
        sys.exit(bool(each_kind(Path(place))))
    sys.exit(bool(random_kills(Path(place), int(kills), int(seed), rest[0] if rest else "1")))
