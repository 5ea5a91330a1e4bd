"""A small network learns from a large one, by Hinton et al. 2015: from its scores and from the labels."""

from pathlib import Path
from typing import Any

import torch

from fedsparse.commands.checks import checked
from fedsparse.commands.train_central import train_all
from fedsparse.commands.trained_models import Scores, checked_file, loaded
from fedsparse.config import Config
from fedsparse.config.data_settings import DataSettings
from fedsparse.config.settings import Given
from fedsparse.config.yaml_file import read_yaml
from fedsparse.distillation.softened import softened
from fedsparse.distillation.teacher import Lesson, as_it_is
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment

DATA = tuple(name.replace("_", "-") for name in DataSettings.model_fields)


def distill(settings: Given, teacher: str = "", temperature: str = "4", mix: str = "0.9") -> None:
    """`main.py distill`: train as `train-central` does, with the loss (1 - mix) labels + mix T^2 KL.

    Args:
        settings: the student's; those of the data are the teacher's unless given.
        teacher: a run's ``model.pt``, with its ``config.yaml`` beside it.
        temperature: T, of ``softened``.
        mix: the weight of the teacher, from 0, labels alone, to 1, no labels.

    Raises:
        ConfigError: one of these is missing or wrong; the teacher is of another model or another kind of data.
    """
    degree, share = _number("temperature", temperature, 1e3), _number("mix", mix, 1.0)
    if not degree:
        raise ConfigError(f"temperature = {temperature}: should be above 0")
    path = checked_file(teacher, "teacher", "distill")
    own = _settings_beside(path)
    config = checked(Given({key: own[key] for key in DATA if key in own} | settings), effects=False, training="central")
    torch.set_num_threads(config.threads)
    known = _teacher(config, own, path)
    scores = Scores(known.task)
    measured = scores.measure(f"of the teacher, {known.model_name}", known)
    lesson = Lesson(as_it_is(known.model), softened, degree, weight=share, labels=1 - share)
    told = {"teacher": teacher, "temperature": degree, "mix": share, f"teacher-{scores.name}": measured}
    train_all(config, lesson=lesson, told=told)


def _number(key: str, text: str, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise ConfigError(f"{key} = {text}: should be a number from 0 to {most:g}")
    return number


def _settings_beside(teacher: Path) -> dict[str, Any]:
    beside = teacher.with_name("config.yaml")
    if not beside.is_file():
        raise ConfigError(f"teacher = {teacher}: has no config.yaml beside it, which says what model it is")
    return read_yaml(beside)


def _teacher(config: Config, own: dict[str, Any], path: Path) -> Experiment:
    """The teacher on the student's data and device, with its weights."""
    shared = {key: config.flat()[key] for key in (*DATA, "device", "threads")}
    return loaded(Config.from_mapping(own | {"init": "", "resume": ""} | shared), path, "teacher")
