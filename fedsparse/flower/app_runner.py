"""Runs anybody's Flower app on LocalGrid: without Ray, in this process, and with the same bits every time."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedsparse.errors import ConfigError, RunFailed
from fedsparse.files import locked
from fedsparse.flower.app_grid import AppGrid, Enough
from fedsparse.flower.app_imports import importing_from, load_component
from fedsparse.flower.app_project import node_count, read_project, run_config_of
from fedsparse.flower.message_log import MessageLog
from fedsparse.flower.randomness import seed_everything
from fedsparse.flower.reply_journal import ReplyJournal
from fedsparse.plugins import last_line
from fedsparse.seeds import derive_seed
from fedsparse.telemetry.events import cut_events
from fedsparse.telemetry.folder import create_run_folder, write_json

logger = logging.getLogger("fedsparse")

SETTINGS, JOURNAL = "app.json", "journal"
"""In the run folder: the file of what the run was given, and the folder of the journal."""


class AppRun(NamedTuple):
    """A finished run of an app.

    Attributes:
        folder: the run folder.
        rows: as ``MessageLog.rows``.
        summary: all counts.
    """

    folder: Path
    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def run_app(
    path: str | Path,
    run_config: str | Mapping[str, Any] = "",
    *,
    num_supernodes: int | str = "",
    workers: int = 1,
    threads: int = 1,
    seed: int = 0,
    client_timeout: float = 0.0,
    journal_gb: float = 10.0,
    logdir: str | Path = "runs",
    name: str = "",
    resume: str | Path = "",
    grid: Callable[..., AppGrid] = AppGrid,
) -> AppRun:
    """Run the Flower app in a folder.

    Args:
        path: the folder with the app's pyproject.toml.
        run_config: as for `flwr run --run-config`, or the settings by name.
        num_supernodes: nodes; by default what the app or Flower's configuration says.
        workers: processes that call clients; with 1 they run in this process.
        threads: torch threads of each process.
        seed: of the global random generators, of the server and of every message.
        client_timeout: seconds after which a client fails; 0 for never.
        journal_gb: the most that the journal may take on disk, without which the run cannot be resumed.
        logdir: where the run folder is made.
        name: of the run folder; by default the app's.
        resume: the run folder of a run to go on with.
        grid: what makes the grid.

    Raises:
        ConfigError: a mistake of the user's, or in the app's files.
        RunFailed: no client has ever answered, or the run cannot go on.
    """
    project = read_project(str(path))
    nodes, origin = node_count(project, num_supernodes)
    settings = {
        "app": str(project.folder), "run-config": run_config_of(project, run_config), "num-supernodes": nodes,
        "seed": seed, "threads": threads,
    }  # fmt: skip
    if resume:
        _check_agreement(Path(resume), settings)
    print(f"{project.name}: {nodes} SuperNodes ({origin})", flush=True)
    torch.set_num_threads(threads)
    options = {"run_config": settings["run-config"], "threads": threads, "client_timeout": client_timeout}
    with importing_from(project.folder), grid(project.client_app, nodes, seed, workers=workers, **options) as made:
        seed_everything(derive_seed(seed, "sample"))
        server = load_component(project.server_app, ServerApp)
        folder = Path(resume) if resume else create_run_folder(str(logdir), name or project.name)
        with locked(folder), _log_file(folder):
            return _play(server, made, folder, settings, ReplyJournal(folder / JOURNAL, 1e9 * journal_gb))


def _play(server: ServerApp, grid: AppGrid, folder: Path, settings: Mapping[str, Any], journal: ReplyJournal) -> AppRun:
    """Run the server to its end; in a folder of a run that goes on, all files but the journal are written anew."""
    write_json(folder / SETTINGS, settings)
    cut_events(folder, {})
    # An id of its own, because clients may keep files for each run, and the same one when a run goes on.
    grid.set_run(Run.create_empty(xxhash.xxh3_64_intdigest(str(folder.resolve()).encode())))
    with MessageLog(folder, {"command": "run-app", "config": settings}) as log:
        grid.write_into(log, journal)
        try:
            server(grid, Context(TaskIdentity.run_id, TaskIdentity.node_id, {}, RecordDict(), dict(grid.run_config)))
        except Enough:
            pass
        except (ConfigError, RunFailed):
            raise
        except Exception as error:  # the app's code may raise anything
            logger.info("the ServerApp failed", exc_info=True)
            raise RunFailed(f"the ServerApp failed: {last_line(error)} (all of it: {folder / 'log.txt'})") from error
        if log.rows and all(row["failed"] == row["messages"] for row in log.rows):
            raise RunFailed(f"no client has answered: {log.failure}")
    journal.remove()  # because a complete run has nothing to go on with
    return AppRun(folder, log.rows, log.summary())


def _check_agreement(folder: Path, settings: Mapping[str, Any]) -> None:
    """Check that a run can go on with these settings.

    Raises:
        ConfigError: it has other ones, is complete, or is no run of an app.
    """
    try:
        before = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"resume = {folder}: it has no {SETTINGS}, so it is not the folder of an app's run") from None
    changed = [key for key in settings if before.get(key) != settings[key]]
    for key in changed:
        raise ConfigError(f"resume = {folder}: this run has {key} = {before.get(key)}, not {settings[key]}")
    if not (folder / JOURNAL).is_dir():
        raise ConfigError(f"resume = {folder}: it has no journal, because it is complete, too large, or just begun")


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """A context in which Flower's log and ours, with the tracebacks of failed clients, go into ``log.txt`` too."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    loggers = [logging.getLogger("flwr"), logger]
    logger.setLevel(logging.INFO)
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)
        handler.close()
