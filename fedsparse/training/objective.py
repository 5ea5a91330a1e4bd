"""What a local step makes smaller: the loss of the task, and what settings add to it."""

from typing import NamedTuple

from torch import Tensor

from fedsparse.config import Config
from fedsparse.distillation.mutual import mutual, risen
from fedsparse.distillation.teacher import Lesson
from fedsparse.tasks import Task
from fedsparse.vector import FlatModel


class Losses(NamedTuple):
    """A batch's scores, the task's loss on them, which is reported, and the loss that is minimised."""

    outputs: Tensor
    task: Tensor
    whole: Tensor


class Objective:
    """The losses of batches while ``model``, which holds the global weights now, is trained.

    Args:
        lesson: what to learn from a teacher; None for what the settings say of the global model.
        round: the present one, from 1.
    """

    def __init__(
        self, model: FlatModel, config: Config, task: Task, lesson: Lesson | None = None, round: int = 1
    ) -> None:
        self.module, self.task = model.module, task
        self.exits, self.exit_weight = config.exits, config.exit_weight
        self.mutual = config.exit_distill * risen(round, config.exit_distill_rounds)
        self.lesson = lesson or Lesson.of_the_round(config, model)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Losses:
        scores = self.module(inputs)
        outputs = scores[-1] if self.exits else scores  # of the deepest classifier
        loss = self.task.loss(outputs, targets)
        whole = self.lesson.loss(loss, inputs, outputs, targets) if self.lesson else loss
        if self.exits:
            earlier = [self.task.loss(early, targets) for early in scores[:-1]]
            whole = whole + self.exit_weight * sum(earlier)
            if self.mutual:
                whole = whole + self.mutual * mutual(scores, targets)
            whole = whole / (1 + self.exit_weight * len(earlier))
        return Losses(outputs, loss, whole)
