"""Show who holds which classes: a table in the terminal, a picture and a file in the log folder."""

from shutil import get_terminal_size

from fedsparse.commands.checks import checked
from fedsparse.config.settings import Given
from fedsparse.experiment import Experiment
from fedsparse.partitions.partition_file import write
from fedsparse.telemetry.folder import create_run_folder

NARROWEST = 40
"""Columns that the table has in any case."""


def partition(settings: Given) -> None:
    """`main.py partition`. ``--distribution partition.csv`` takes the file back, so that others can share it."""
    experiment = Experiment(checked(settings))
    data, partition = experiment.dataset, experiment.partition
    width = max(get_terminal_size(fallback=(120, 24)).columns, NARROWEST)
    print(data.table(partition, width))
    folder = create_run_folder(experiment.config.logdir, experiment.config.name or "partition")
    data.plot(partition).savefig(folder / "partition.png", dpi=120)
    write(folder / "partition.csv", partition)
    print(f"saved as {folder / 'partition.png'} and {folder / 'partition.csv'}")
