"""What is learnt: what the loss of a batch is, and what is measured of its predictions.

A data set names its task, or brings one of its own: a subclass of :class:`Task`, or any object with its members. The
rest of the house asks the task, and never which one it is.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor
from torch.nn import functional as F


class Task:
    """One of some classes for each prediction: a label for an image.

    Attributes:
        metrics: what is measured beside the loss, and how it is printed; the first is the run's headline. ``accuracy``
            is the share of predictions that are ``correct``; any other one comes from ``derived``.
    """

    metrics: Mapping[str, str] = {"accuracy": ".2%"}

    def loss(self, outputs: Tensor, targets: Tensor, reduction: Literal["mean", "sum", "none"] = "mean") -> Tensor:
        """Cross-entropy.

        Args:
            outputs: of the model: scores, float, shape ``(*targets.shape, classes)``.
            targets: int64; each element is one prediction to make.
            reduction: ``none`` gives a flat vector with the loss of every prediction.
        """
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction=reduction)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether each prediction is right: bool, of the shape of ``targets``."""
        return outputs.argmax(-1) == targets

    def derived(self, loss: float) -> dict[str, float]:
        """Metrics that follow from the mean loss over all predictions, such as a perplexity."""
        return {}


TASKS: dict[str, Task] = {"classify": Task()}
