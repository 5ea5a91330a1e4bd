"""A task: the loss of a batch, and the metrics of its predictions.

A data set names its task, or has a task of its own: an object of a subclass of :class:`Task`, or with the same members.
No other module tests which task it has.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F


class Task:
    """Classification: each prediction chooses one class, for instance the label of an image.

    Attributes:
        metrics: the metrics beside the loss, each with its print format; the first is shown as the run's main result.
            ``accuracy`` is the share of predictions that are ``correct``; any other metric comes from ``derived``.
        unit: what the predictions are counted in.
    """

    metrics: Mapping[str, str] = {"accuracy": ".2%"}
    unit = "samples"

    def loss(self, outputs: Tensor, targets: Tensor, reduction: Literal["mean", "sum", "none"] = "mean") -> Tensor:
        """Cross-entropy.

        Args:
            outputs: scores from the model, float, shape ``(*targets.shape, classes)``.
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


class Language(Task):
    """Next-token prediction: each position of a window of text predicts the token that follows.

    Args:
        bytes_per_token: of the test text, in UTF-8. Perplexity is by token, so that it depends on the tokenizer; bits
            per byte compare models with different tokenizers.
    """

    metrics: Mapping[str, str] = {"perplexity": ".2f", "accuracy": ".2%", "bits_per_byte": ".3f"}
    unit = "tokens"

    def __init__(self, bytes_per_token: float) -> None:
        self.bytes_per_token = bytes_per_token

    def derived(self, loss: float) -> dict[str, float]:
        """The perplexity exp(loss), at most 1e304 because telemetry wants finite numbers, and bits per byte."""
        return {"perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": loss / math.log(2) / self.bytes_per_token}


TASKS: dict[str, Callable[[Any], Task]] = {
    "classify": lambda data: Task(),
    "language": lambda data: Language(data.bytes_per_token),
}
"""The task of each name, made from the data set."""
