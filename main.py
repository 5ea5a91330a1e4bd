#!/usr/bin/env python3
"""Federated learning with sparse communication.

python main.py --distribution dirichlet --beta 0.1    run an experiment
python main.py --config configs/quick-test.yaml       with settings from a file; flags override it
python main.py partition --distribution shards        show which client holds which classes
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# Before torch loads: with more than one thread, OpenMP's spinning makes processes side by side many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.logging import RichHandler

from fedsparse.config import KEYS, Config, ConfigError, read_yaml, unknown_key
from fedsparse.device import resolve_device
from fedsparse.engine import LocalGrid, RunFailed
from fedsparse.sparsity.setup import check_sparsity
from fedsparse.telemetry.folder import OutputError, check_writable, create_run_folder
from partitions import DataError, load_dataset
from partitions import partition as split


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(arguments: list[str]) -> tuple[str, Config]:
    """The command, and the Config that defaults, ``--config`` and flags make.

    Every flag's value goes to Config as the string it is: one place converts and checks, for flags and YAML alike.

    Raises:
        ConfigError: one line that says what is wrong.
    """
    parser = Parser("main.py", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", nargs="?", default="run", help=f"one of {', '.join(COMMANDS)}; run when left out")
    parser.add_argument("--config", metavar="FILE", action="append", default=[], help="YAML file of the settings below")
    for key, field in zip(KEYS, Config.model_fields.values(), strict=True):
        text = f"{field.description} [{field.default}]".replace("%", "%%")
        switch: dict[str, Any] = {"nargs": "?", "const": True} if field.annotation is bool else {}
        parser.add_argument(f"--{key}", dest=key, default=argparse.SUPPRESS, metavar="VALUE", help=text, **switch)
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag[2:] not in (*KEYS, "config", "help"):
            raise ConfigError(unknown_key(flag[2:], "--"))
    flags = vars(parser.parse_args(arguments))
    command, files = flags.pop("command"), flags.pop("config")
    if command not in COMMANDS:
        raise ConfigError(f"unknown command {command!r}; the commands are {', '.join(COMMANDS)}")
    settings: dict[str, Any] = {}
    for file in files:
        settings |= read_yaml(file)
    return command, Config.from_mapping(settings | flags)


def run(config: Config) -> None:
    """Train, on the engine that the settings name."""
    if config.engine == "flower":
        from fedsparse.engine.flower import run_flower

        return run_flower(config, app_folder=Path(__file__).parent)
    # Not at the top of the file: workers import this file too, and need no TensorBoard.
    from flwr.app import Context, RecordDict

    from strategies.app import app

    with LocalGrid(
        "clients.app:app",
        config.clients,
        workers=config.worker_count(),
        threads=config.threads,
        client_timeout=config.client_timeout,
    ) as grid:
        app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=dict(config.flat())))


def partition(config: Config) -> None:
    """Print the class histogram of the clients and save it as a picture in the log folder."""
    from partitions.picture import histogram_text, plot_partition

    labels = (data := load_dataset(config.dataset, config.data_dir)).y_train
    parts = split(labels, **config.partitioning())
    print(histogram_text(labels, parts, data.class_names))
    picture = create_run_folder(config.logdir, "partition") / "partition.png"
    plot_partition(labels, parts, data.class_names).savefig(picture, dpi=120)
    print(f"saved as {picture}")


COMMANDS: dict[str, Callable[[Config], None]] = {"run": run, "partition": partition}


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
        command, config = parse(arguments)
        COMMANDS[command](check(config))
    except KeyboardInterrupt:
        print("interrupted; what was measured so far is saved", file=sys.stderr)
        return 130
    except (ConfigError, DataError, OutputError) as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
