"""Compare runs, or the cells of sweeps."""

import sys

from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.experiment import load_dataset, partition_of
from fedsparse.partitions import Dataset, Partition
from fedsparse.partitions.downloads import without_downloads
from fedsparse.report.compare import Comparison
from fedsparse.report.found import FoundRuns
from fedsparse.report.options import Options
from fedsparse.report.page import write_page
from fedsparse.telemetry.folder import create_run_folder


def report(settings: Given, *folders: str, **flags: str) -> None:
    """`main.py report RUN_FOLDER...`: a table, the metric of the task against uplink, who holds what."""
    if other := sorted(settings.typed - {"logdir"}):
        raise ConfigError(f"--{other[0]} has no effect on a report: its runs have their own settings")
    config = Config.from_mapping(settings).absolute_paths()
    options = Options.of(**flags)
    found = FoundRuns(folders)
    for note in found.notes:
        print(note, file=sys.stderr)
    comparison = Comparison(found.runs, options)
    shared = _split_data(found.configs[0]) if found.shares_partition() else None
    beside = shared is not None and options.size == "screen"
    figure, last = comparison.figure(parts=2 if beside else 1)
    partition = shared[0].plot(shared[1]) if shared else None
    if shared and beside:
        shared[0].draw(shared[1], last)
    folder = create_run_folder(config.logdir, "report")
    text = comparison.write_tables(folder)
    names = comparison.save_pictures(folder, "report", figure)
    write_page(folder, comparison, found.files, partition, found.notes)
    print(f"{text}\nreport.html, {', '.join(names)}, table.md, table.csv and table.tex are in {folder}")


def _split_data(config: Config) -> tuple[Dataset, Partition] | None:
    """The data and who holds them; None, and a line that says what is missing, where they cannot be had."""
    try:
        with without_downloads():
            data = load_dataset(*config.loading())
            return data, partition_of(config.loading(), **config.partitioning())
    except ConfigError as error:
        print(f"without the picture of who holds what: {error}", file=sys.stderr)
        return None
