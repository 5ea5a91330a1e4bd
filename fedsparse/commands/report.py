"""Compare finished runs, or the cells of sweeps."""

from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.experiment import Experiment
from fedsparse.report.compare import Comparison
from fedsparse.telemetry.folder import create_run_folder
from partitions.picture import draw_partition


def report(settings: Given, *folders: str) -> None:
    """`main.py report RUN_FOLDER...`: a plot of accuracy over uplink, the partition if all runs share it, a table."""
    config = Config.from_mapping(settings).absolute_paths()
    comparison = Comparison(folders)
    figure = comparison.figure(parts=1 + comparison.shares_partition())
    if comparison.shares_partition():
        common = Experiment(comparison.configs[0].replace(device="cpu"))
        data = common.data
        draw_partition(data.y_train.cpu(), common.partition, data.class_names, figure.subfigs[1])
    comparison.save(create_run_folder(config.logdir, "report"), figure)
