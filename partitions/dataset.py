"""A data set: images and labels as tensors, with the facts about them that training needs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class DataError(ValueError):
    """A data set cannot be read, or a partition cannot be made; the message is one line that a user can act on."""


@dataclass(frozen=True, eq=False)  # hashed by identity, so that `to_device` can cache its results
class Dataset:
    """Images with labels in memory, neither normalised nor augmented yet.

    Attributes:
        classes: number of classes; every label is in [0, classes).
        class_names: one name a class, in the order of the labels.
        x_train, x_test: images, (N, C, H, W), uint8, or float32 when the source has floating-point pixels.
        y_train, y_test: labels, (N,), int64.
        mean, std: of each channel, (C,), float32, in the units of the stored pixels (0 to 255 for uint8).
        crop: pixels of padding on each side before a random crop; 0 for no crops.
        flip: whether training images may be mirrored left to right.
        owners: the natural client of each training sample, (N_train,), int64 in [0, natural clients); None if the
            source does not name clients.
        task: the name of a task, or a `Task` object of the user's own. This package does not use it.
    """

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
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.x_train.shape[1:]
        return channels, height, width


def from_images(
    class_names: tuple[str, ...],
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    owners: NDArray[np.int64] | None = None,
) -> Dataset:
    """A data set of images and labels alone.

    Mean and deviation are measured on `x_train`; augmentation crops by an eighth of the shorter side, and flips.
    """
    mean, std = channel_statistics(x_train)
    crop = min(x_train.shape[2:]) // 8
    return Dataset(
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


def classes_without_samples(data: Dataset) -> str:
    """The labels that no training sample has, as ``0, 10 to 254``: a model's outputs for them never learn.

    Empty where there are none, and where labels are not one whole number a sample.
    """
    labels = data.y_train
    if labels.ndim != 1 or labels.is_floating_point():
        return ""
    runs: list[list[int]] = []
    for label in (torch.bincount(labels.cpu(), minlength=data.classes) == 0).nonzero().flatten().tolist():
        if runs and runs[-1][-1] == label - 1:
            runs[-1][1:] = [label]
        else:
            runs.append([label])
    return ", ".join(" to ".join(map(str, run)) for run in runs)


def reason(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type when it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
