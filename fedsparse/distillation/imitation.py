"""Learning from scores alone: the student's task in FedDF, which sees no label."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from fedsparse.distillation.softened import softened
from fedsparse.tasks import Task


class Imitation(Task):
    """The targets of a sample are the teacher's scores: float, of the shape of the outputs."""

    metrics: Mapping[str, str] = {}

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def loss(self, outputs: Tensor, targets: Tensor, reduction: Literal["mean", "sum", "none"] = "mean") -> Tensor:
        """``softened``, always the mean over predictions."""
        return softened(outputs, targets, targets, self.temperature)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether the student and its teacher choose the same class."""
        return outputs.argmax(-1) == targets.argmax(-1)
