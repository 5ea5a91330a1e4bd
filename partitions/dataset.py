"""What every data set is, whatever its samples are."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from fedsparse.partitions.split import Partition

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, ready for the model."""


class DataError(ValueError):
    """A data set cannot be read, or a partition cannot be made; the message is one line that a user can act on."""


class Dataset(ABC):
    """Training samples, which clients hold, and a test set, which the server holds. `Images` and `Text` are data sets.

    Attributes:
        kind: what its samples are, "images" or "text", which decides the models that fit; None for anything else, which
            any model may fit.
        classes: how many scores a model gives for each prediction; every target is in [0, classes).
        owners: the natural client of each training sample, (train_size,), int64 in [0, natural clients); None if the
            source does not name clients.
        task: the name of a task, or a `Task` object of the user's own. This package does not use it.
    """

    kind: ClassVar[str | None] = None
    classes: int
    owners: NDArray[np.int64] | None
    task: Any

    @property
    def vocabulary(self) -> str:
        """A fingerprint of what the tokens mean; empty if samples have none."""
        return ""

    @property
    @abstractmethod
    def train_size(self) -> int:
        """How many training samples there are."""

    @property
    @abstractmethod
    def test_size(self) -> int:
        """How many test samples there are."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input of the model."""

    @property
    @abstractmethod
    def samples_in_words(self) -> str:
        """What a sample is, with its shape, for messages."""

    @property
    @abstractmethod
    def labels(self) -> NDArray[np.int64] | None:
        """The class of each training sample, (train_size,), for distributions that skew classes; None if none."""

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """The data set on `device`; the same call returns the same object again."""

    @abstractmethod
    def fetch(self, indices: Tensor, generator: torch.Generator | None = None) -> Callable[[Tensor], Batch]:
        """A function that makes the batch of the samples `indices[positions]`.

        Args:
            indices: the training samples of a client, int64, on the device.
            generator: the only source of randomness of augmentation; None for no augmentation.
        """

    @abstractmethod
    def test_batch(self, positions: Tensor) -> Batch:
        """The batch of these test samples (int64, on the device)."""

    @abstractmethod
    def trial(self) -> Batch:
        """A batch of two samples whose targets hold the smallest and the largest class: does a model fit the data?"""

    def classes_without_samples(self) -> str:
        """The classes that no training sample has, as ``0, 10 to 254``, where that is most likely a mistake."""
        return ""

    @abstractmethod
    def table(self, partition: "Partition", width: int) -> str:
        """Who holds what, as lines of at most `width` columns for the terminal."""

    @abstractmethod
    def draw(self, partition: "Partition", figure: "Figure | SubFigure") -> None:
        """Draw who holds what into an empty figure, or an empty part of one."""

    @abstractmethod
    def plot(self, partition: "Partition") -> "Figure":
        """`draw` in a new figure of a fitting size, without pyplot: save it by `figure.savefig(path)`."""


def reason(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type when it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
