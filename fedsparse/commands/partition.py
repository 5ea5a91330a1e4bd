"""Show who holds which classes: a table in the terminal, a picture and a file in the log folder."""

from fedsparse.commands.run import checked
from fedsparse.config.settings import Given
from fedsparse.experiment import Experiment
from fedsparse.telemetry.folder import create_run_folder
from partitions.partition_file import write
from partitions.picture import histogram_text, plot_partition


def partition(settings: Given) -> None:
    """`main.py partition`. The file can be shared: ``--distribution partition.csv`` reads it."""
    settings["clients-per-round"] = 1  # so that any number of clients is valid, because no client is sampled here
    experiment = Experiment(checked(settings))
    shown = experiment.data.y_train.cpu(), experiment.partition, experiment.data.class_names
    print(histogram_text(*shown))
    folder = create_run_folder(experiment.config.logdir, "partition")
    plot_partition(*shown).savefig(folder / "partition.png", dpi=120)
    write(folder / "partition.csv", experiment.partition)
    print(f"saved as {folder / 'partition.png'} and {folder / 'partition.csv'}")
