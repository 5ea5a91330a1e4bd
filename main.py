#!/usr/bin/env python3
"""Federated learning with sparse communication.

python main.py --distribution dirichlet --beta 0.1    run an experiment
python main.py --config configs/quick-test.yaml       with settings from a file; flags override it
python main.py partition --distribution shards        show which client holds which classes
python main.py bench-compressors --density 0.01       compare all compressors on updates of a short run
python main.py sweep configs/ablation-compression.yaml   run a grid of settings and seeds; table and plot at the end
python main.py report runs/A runs/B                   compare finished runs: accuracy against uplink, and a table
python main.py train-central --rounds 20              the same model on the pooled data; a round is --epochs passes
python main.py prune --checkpoint runs/A/model.pt --sparsity 0.5    prune a trained model in one shot
"""

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

if __name__ == "__main__":  # the imports below take seconds: Ctrl-C needs no traceback of them
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
# Before torch loads: with more than one thread, OpenMP's spinning makes processes side by side many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.logging import RichHandler

from fedsparse.commands.command_line import Command, Settings, parse
from fedsparse.config import Config
from fedsparse.config.yaml_file import read_yaml
from fedsparse.device import resolve_device
from fedsparse.engine import LocalGrid, RunFailed
from fedsparse.errors import ConfigError
from fedsparse.sparsity.setup import check_sparsity
from fedsparse.telemetry.folder import OutputError, check_writable, create_run_folder
from partitions import DataError, load_dataset
from partitions import partition as split


def run(settings: Settings) -> None:
    """Train, on the engine that the settings name."""
    config = check(Config.from_mapping(settings))
    if config.engine == "flower":
        from fedsparse.engine.flower_run import run_flower

        return run_flower(config, app_folder=Path(__file__).parent)
    # Not at the top of the file: workers import this file too, and need no TensorBoard.
    from flwr.app import Context, RecordDict

    from clients.preload import DATA
    from strategies.server_app import app

    os.environ[DATA] = json.dumps([config.dataset, config.data_dir])  # for the fork server, which LocalGrid starts
    with LocalGrid(
        "clients.client_app:app",
        config.clients,
        together="clients.client_app:train_together",
        workers=config.worker_count(),
        threads=config.threads,
        client_timeout=config.client_timeout,
        preload=["clients.preload"],
    ) as grid:
        del os.environ[DATA]
        app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=dict(config.flat())))


def partition(settings: Settings) -> None:
    """Print the class histogram of the clients and save it as a picture in the log folder."""
    from partitions.picture import histogram_text, plot_partition

    config = check(Config.from_mapping({**settings, "clients-per-round": 1}))  # nobody is sampled here
    labels = (data := load_dataset(config.dataset, config.data_dir)).y_train
    parts = split(labels, **config.partitioning())
    print(histogram_text(labels, parts, data.class_names))
    picture = create_run_folder(config.logdir, "partition") / "partition.png"
    plot_partition(labels, parts, data.class_names).savefig(picture, dpi=120)
    print(f"saved as {picture}")


def sweep(settings: Settings, file: str, jobs: str = "auto") -> None:
    """Run every cell of a sweep file as a process of its own; write one table and one plot of all."""
    from fedsparse.commands.sweep import run_sweep
    from fedsparse.report.grid import read_sweep

    if jobs != "auto" and not (jobs.isdecimal() and int(jobs)):
        raise ConfigError(f"jobs = {jobs}: should be auto or at least 1")
    plan = read_sweep(file, settings)
    # Cells that share their data and partition need one look between them.
    for config in {
        str((c.dataset, c.data_dir, c.device, c.partitioning())): c for c in (cell.config for cell in plan.cells)
    }.values():
        check(config)
    run_sweep(plan, Path(__file__).absolute(), "auto" if jobs == "auto" else int(jobs))


def report(settings: Settings, *folders: str) -> None:
    """Compare finished runs, or the cells of sweeps: accuracy against uplink, who holds which classes, a table."""
    from fedsparse.report.compare import Comparison
    from partitions.picture import draw_partition

    config = Config.from_mapping(settings).absolute_paths()
    comparison = Comparison(folders)
    figure = comparison.figure(parts=1 + comparison.shares_partition())
    if comparison.shares_partition():
        common = comparison.configs[0]
        labels = (data := load_dataset(common.dataset, common.data_dir)).y_train
        draw_partition(labels, split(labels, **common.partitioning()), data.class_names, figure.subfigs[1])
    comparison.save(create_run_folder(config.logdir, "report"), figure)


def central(settings: Settings) -> None:
    """Train the same model on the pooled data."""
    from fedsparse.commands.train_central import train_central

    train_central(check(Config.from_mapping(settings)))


def prune(settings: Settings, checkpoint: str = "", **asked: str) -> None:
    """Prune a trained model in one shot; its settings are in the config.yaml beside it, if there is one."""
    from fedsparse.commands.prune import prune_checkpoint

    if "sparsity" in settings:  # here that of the pruned layers; in training that of the whole network
        asked["sparsity"] = str(settings["sparsity"])
        settings = {key: value for key, value in settings.items() if key != "sparsity"}
    beside = Path(checkpoint).with_name("config.yaml") if checkpoint else Path()
    own = read_yaml(beside) if beside.is_file() else {}
    prune_checkpoint(check(Config.from_mapping(own | {"outfile": "", "nm": ""} | settings)), checkpoint, **asked)


def bench_compressors(settings: Settings, size: str = "") -> None:
    """Compare all compressors on updates of a short run, or on ``size`` random numbers."""
    from fedsparse.commands.bench_compressors import bench

    if size and not (size.isdecimal() and int(size)):
        raise ConfigError(f"size = {size}: should be at least 1")
    bench(check(Config.from_mapping(settings)), int(size or 0))


COMMANDS = {
    "run": Command(run),
    "partition": Command(partition),
    "bench-compressors": Command(bench_compressors, own={"size": "random numbers instead of updates of a run"}),
    "sweep": Command(sweep, "FILE", {"jobs": "cells at once; auto is one a core, or one on a GPU [auto]"}),
    "report": Command(report, "RUN_FOLDER..."),
    "train-central": Command(central),
    "prune": Command(
        prune,
        own={
            "checkpoint": "model.pt of a run",
            "method": "sparsegpt or magnitude [sparsegpt]",
            "samples": "training samples to calibrate on [512]",
        },
    ),
}


def check(config: Config) -> Config:
    """The settings with absolute paths, after a look at everything outside them that could stop a run at once."""
    config = config.absolute_paths()
    resolve_device(config.device)
    check_writable(config.logdir, config.outfile)
    data = load_dataset(config.dataset, config.data_dir)
    split(data.y_train, **config.partitioning())
    check_sparsity(config, data.input_shape, data.classes)
    return config


def main(arguments: list[str]) -> int:
    """The exit code: 0; 1 when a run failed; 2 for a mistake in what the user gave; 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", handlers=[RichHandler(show_path=False, show_time=False, level="WARNING")])
    try:
        command, settings, files, own = parse(arguments, COMMANDS, __doc__)
        COMMANDS[command].act(settings, *files, **own)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ConfigError, DataError, OutputError) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `main.py partition | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RunFailed, OSError) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 1
    return 0


def thread_failed(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer hands its error over; of a full disk the main thread says it all, in a line."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


if __name__ == "__main__":
    threading.excepthook = thread_failed
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a batch system's end, a closed terminal
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup
            signal.signal(ending, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
