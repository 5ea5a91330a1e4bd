"""Images with labels, in memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.partitions.batches import augment, normalise
from fedsparse.partitions.dataset import Batch, Dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from fedsparse.partitions.split import Partition


@dataclass(frozen=True, eq=False)  # hashed by identity, so that `to` can cache its results
class Images(Dataset):
    """Images with labels in memory, neither normalised nor augmented yet.

    Attributes:
        classes: number of classes; every label is in [0, classes).
        class_names: one name a class, in the order of the labels.
        x_train, x_test: images, (N, C, H, W), uint8, or float32 when the source has floating-point pixels.
        y_train, y_test: labels, (N,), int64.
        mean, std: of each channel, (C,), float32, in the units of the stored pixels (0 to 255 for uint8).
        crop: pixels of padding on each side before a random crop; 0 for no crops.
        flip: whether training images may be mirrored left to right.
        owners, task: as in `Dataset`.
    """

    kind = "images"
    classes: int
    class_names: tuple[str, ...]
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    mean: Tensor
    std: Tensor
    crop: int = 0
    flip: bool = False
    owners: NDArray[np.int64] | None = None
    task: Any = "classify"

    @property
    def train_size(self) -> int:
        """How many training images there are."""
        return len(self.y_train)

    @property
    def test_size(self) -> int:
        """How many test images there are."""
        return len(self.y_test)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple(self.x_train.shape[1:])

    @property
    def samples_in_words(self) -> str:
        """Such as ``images of 1x28x28 (channels, height, width)``."""
        return f"images of {'x'.join(map(str, self.input_shape))} (channels, height, width)"

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of each training image."""
        return np.asarray(self.y_train.cpu(), dtype=np.int64)

    def to(self, device: str | torch.device) -> "Images":
        """The data set with every tensor on `device`; the same call returns the same object again."""
        return _to_device(self, torch.device(device))

    def fetch(self, indices: Tensor, generator: torch.Generator | None = None) -> Callable[[Tensor], Batch]:
        """Normalised images and their labels; with a generator, the images are cropped and mirrored at random."""

        def batch(positions: Tensor) -> Batch:
            chosen = indices.index_select(0, positions)
            images = self.x_train.index_select(0, chosen)
            if generator is not None:
                images = augment(images, self.crop, self.flip, generator)
            return normalise(images, self.mean, self.std), self.y_train.index_select(0, chosen)

        return batch

    def test_batch(self, positions: Tensor) -> Batch:
        """Normalised test images and their labels."""
        return normalise(self.x_test[positions], self.mean, self.std), self.y_test[positions]

    def trial(self) -> Batch:
        """Two black images, with the smallest and the largest label."""
        labels = self.y_train.flatten(1).amax(1) if self.y_train.dim() > 1 else self.y_train
        extremes = torch.stack([labels.argmin(), labels.argmax()])
        return torch.zeros(2, *self.input_shape), self.y_train[extremes]

    def classes_without_samples(self) -> str:
        """The labels that no training image has, as ``0, 10 to 254``: a model's outputs for them never learn.

        Empty where there are none, and where labels are not one whole number a sample.
        """
        labels = self.y_train
        if labels.ndim != 1 or labels.is_floating_point():
            return ""
        runs: list[list[int]] = []
        for label in (torch.bincount(labels.cpu(), minlength=self.classes) == 0).nonzero().flatten().tolist():
            if runs and runs[-1][-1] == label - 1:
                runs[-1][1:] = [label]
            else:
                runs.append([label])
        return ", ".join(" to ".join(map(str, run)) for run in runs)

    def table(self, partition: "Partition", width: int) -> str:
        """The class histogram of each client."""
        from fedsparse.partitions.picture import (
            histogram_text,  # imported here, because matplotlib costs most of a second
        )

        return histogram_text(self.labels, partition, self.class_names, width)

    def draw(self, partition: "Partition", figure: "Figure | SubFigure") -> None:
        """The class histogram of each client."""
        from fedsparse.partitions.picture import draw_partition

        draw_partition(self.labels, partition, self.class_names, figure)

    def plot(self, partition: "Partition") -> "Figure":
        """The class histogram of each client, in a new figure."""
        from fedsparse.partitions.picture import plot_partition

        return plot_partition(self.labels, partition, self.class_names)


@lru_cache(maxsize=2)  # two at most, because a data set on a GPU is large
def _to_device(data: Images, device: torch.device) -> Images:
    if device == data.x_train.device:
        return data
    names = ("x_train", "y_train", "x_test", "y_test", "mean", "std")
    return replace(data, **{name: getattr(data, name).to(device) for name in names})


def from_images(
    class_names: tuple[str, ...],
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    owners: NDArray[np.int64] | None = None,
) -> Images:
    """A data set of images and labels alone.

    Mean and deviation are measured on `x_train`; augmentation crops by an eighth of the shorter side, and flips.
    """
    mean, std = channel_statistics(x_train)
    crop = min(x_train.shape[2:]) // 8
    return Images(
        len(class_names), class_names, x_train, y_train, x_test, y_test, mean, std, crop, flip=True, owners=owners
    )


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (C,) float32, of images (N, C, H, W) of any dtype.

    Two passes over slices of 1024 images are exact even when the mean is far from 0, and never hold a float copy of
    all images. A constant channel gets a standard deviation of 1, so that dividing by it is harmless.
    """
    pixels = images.numel() / images.shape[1]
    mean = sum(part.double().sum((0, 2, 3)) for part in images.split(1024)) / pixels
    centre = mean.view(-1, 1, 1)
    variance = sum((part.double() - centre).square_().sum((0, 2, 3)) for part in images.split(1024)) / pixels
    std = variance.sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()
