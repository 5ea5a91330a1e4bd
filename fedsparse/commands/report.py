"""Compare runs, or the cells of sweeps, while they go on too."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fedsparse.commands.all_commands import REPORT
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.data import load_dataset, partition_of
from fedsparse.errors import ConfigError
from fedsparse.files import is_locked
from fedsparse.partitions import Dataset, Partition
from fedsparse.partitions.downloads import without_downloads
from fedsparse.report.compare import Comparison
from fedsparse.report.early_exits import exit_curves, exit_figure
from fedsparse.report.found import FoundRuns
from fedsparse.report.options import Options
from fedsparse.report.page import write_page
from fedsparse.report.sides import bytes_picture, densities_picture
from fedsparse.report.summaries import print_summaries
from fedsparse.telemetry.folder import create_run_folder

LOOK_EVERY = 5
"""Seconds between two looks at runs that go on."""


def report(settings: Given, *folders: str, **flags: str) -> None:
    """`main.py report RUN_FOLDER...`: a table, the metric of the task against uplink, who holds what."""
    if other := sorted(settings.typed - REPORT):
        raise ConfigError(f"--{other[0]} has no effect on a report: its runs have their own settings")
    config = Config.from_mapping(settings).absolute_paths()
    options = Options.of(**{flag.replace("-", "_"): value for flag, value in flags.items()})
    if options.summary:
        found = FoundRuns(folders)
        _show_notes(found)
        print_summaries(found)
        return
    found = FoundRuns(folders) if not options.follow else _when_there_is_one(folders)
    _show_notes(found)
    folder = create_run_folder(config.logdir, "report")
    data = _split_data(found.configs[0]) if found.shares_partition() else None
    while options.follow and _goes_on(folders):
        _write(folder, found, options, data, refresh=LOOK_EVERY)
        print(f"{len(found.runs)} runs, {_rounds(found)} rounds; drawn in {folder}", flush=True)
        found = _after_a_change(folders, found)
    if options.full:
        print_summaries(found)
    text, names = _write(folder, found, options, data)
    print(f"{text}\n{', '.join(names)}, table.md, table.csv and table.tex are in {folder}")


def _show_notes(found: FoundRuns) -> None:
    for note in found.notes:
        print(note, file=sys.stderr)


def _write(
    folder: Path, found: FoundRuns, options: Options, data: tuple[Dataset, Partition] | None, refresh: int = 0
) -> tuple[str, list[str]]:
    """Write the tables, and the pictures that are asked for; returns the table and the names of the pictures.

    Args:
        data: who holds what, if that is the same for all runs.
        refresh: seconds after which a browser reads the page anew; 0 for never.
    """
    comparison = Comparison(found.runs, options)
    text, names = comparison.write_tables(folder), list[str]()
    if options.full or not (options.compare_comm or options.compare_sparse):
        beside = data is not None and options.size == "screen"
        figure, last = comparison.figure(parts=2 if beside else 1)
        partition = data[0].plot(data[1]) if data else None
        if data and beside:
            data[0].draw(data[1], last)
        write_page(folder, comparison, found.files, partition, found.notes, refresh)
        names += ["report.html", *comparison.save_pictures(folder, "report", figure)]
        if exits := exit_curves(found.runs, comparison.rows[0].headline.name):
            figure = exit_figure(exits, comparison.rows[0].headline, options.size)
            names += comparison.save_pictures(folder, "exits", figure)
    if options.full or options.compare_comm:
        names += comparison.save_pictures(folder, "comm", bytes_picture(comparison.rows, options.size))
    if options.full or options.compare_sparse:
        picture = densities_picture(comparison.runs, comparison.rows, options.size)
        names += comparison.save_pictures(folder, "sparse", picture)
    return text, names


def _goes_on(folders: Sequence[str]) -> bool:
    """Whether a run or a sweep in one of the folders is running."""
    inside = (file.parent for folder in folders for file in Path(folder).rglob("config.yaml"))
    return any(is_locked(path) for path in (*map(Path, folders), *inside) if path.is_dir())


def _when_there_is_one(folders: Sequence[str]) -> FoundRuns:
    """The runs, as soon as one of them has a round."""
    while True:
        try:
            return FoundRuns(folders)
        except ConfigError:
            if not all(Path(folder).exists() for folder in folders) or not _goes_on(folders):
                raise
        time.sleep(LOOK_EVERY)


def _after_a_change(folders: Sequence[str], before: FoundRuns) -> FoundRuns:
    """The runs, as soon as there is one more round, or none of them goes on."""
    while True:
        time.sleep(LOOK_EVERY)
        going = _goes_on(folders)
        found = FoundRuns(folders)
        if not going or _rounds(found) != _rounds(before):
            return found


def _rounds(found: FoundRuns) -> int:
    return sum(len(result["rounds"]) for _, result in found.runs)


def _split_data(config: Config) -> tuple[Dataset, Partition] | None:
    """The data and who holds them; None, and a line that says what is missing, where they cannot be had."""
    try:
        with without_downloads():
            data = load_dataset(*config.loading())
            return data, partition_of(config.loading(), **config.partitioning())
    except ConfigError as error:
        print(f"without the picture of who holds what: {error}", file=sys.stderr)
        return None
