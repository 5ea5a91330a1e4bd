"""What the commands share that begin with a trained model: its file, its settings, its scores."""

from pathlib import Path

from fedsparse.commands.checks import checked
from fedsparse.config import Config
from fedsparse.config.settings import Given
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.models.initial import load_weights, read_state
from fedsparse.tasks import Task
from fedsparse.telemetry.tags import Headline
from fedsparse.training.evaluation import evaluate
from fedsparse.vector import FlatModel


def checked_file(file: str, flag: str, command: str) -> Path:
    """The path of a file that a command cannot do without.

    Raises:
        ConfigError: the flag is missing, there is no such file, or it is a folder.
    """
    if not file:
        raise ConfigError(f"{command} needs --{flag}, such as a run's model.pt")
    if Path(file).is_dir():
        raise ConfigError(f"{flag} = {file}: is a folder; give a file in it, such as model.pt")
    if not Path(file).is_file():
        raise ConfigError(f"{flag} = {file}: there is no such file")
    return Path(file)


def checked_samples(samples: str) -> int:
    """How many samples a command draws, as a number.

    Raises:
        ConfigError: it is no whole number above 0.
    """
    if not samples.isdecimal() or not int(samples):
        raise ConfigError(f"samples = {samples}: should be at least 1")
    return int(samples)


def checked_beside(settings: Given, checkpoint: Path) -> Config:
    """The settings of a command that trains no federation, over those of the ``config.yaml`` beside a checkpoint.

    Raises:
        ConfigError, OutputError: as :func:`checked`.
    """
    beside = checkpoint.with_name("config.yaml")
    own = read_yaml(beside) if beside.is_file() else {}
    return checked(Given(own | {"name": "", "outfile": "", "init": ""} | settings), effects=False, training="none")


def refuse_few_bits(config: Config, checkpoint: Path) -> None:
    """Refuse a model that was trained with few bits, for commands that make the bits of weights fewer themselves."""
    if any(config.bits):
        bits = f"weight-bits = {config.weight_bits}, activation-bits = {config.activation_bits}"
        raise ConfigError(f"checkpoint = {checkpoint}: was trained with few bits already ({bits})")


def loaded(config: Config, path: Path, setting: str = "checkpoint") -> Experiment:
    """The experiment whose model is that of a file.

    Args:
        setting: that named the file, for messages.

    Raises:
        ConfigError: see ``load_weights``.
    """
    experiment = Experiment(config)
    if config.lowrank_switches:
        experiment = experiment.shaped_as(read_state(path, f"{setting} = {path}"))
    load_weights(experiment.model.module, path, experiment.model_name, setting, experiment.dataset.vocabulary)
    return experiment


class Scores:
    """The metric of a task after each step of a command, printed at once, because the next step may take minutes.

    Attributes:
        name: of the metric.
        values: by step.
    """

    def __init__(self, task: Task) -> None:
        self._headline = Headline(*next(iter(task.metrics.items())))
        self.name, self.values = self._headline.name, dict[str, float]()

    def measure(self, when: str, experiment: Experiment, model: FlatModel | None = None) -> float:
        """Evaluate the model of an experiment, or another one on its test set."""
        score = evaluate(model or experiment.model, experiment.fetch_test, experiment.data.test_size, experiment.task)
        value = self.values[when] = score.tagged("eval/", experiment.task)[self._headline.tag]
        print(f"{self.name} {when}: {self._headline.shown(value)}", flush=True)
        return value
