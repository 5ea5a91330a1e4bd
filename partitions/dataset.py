"""What a data set is: images and labels as tensors, and the few facts that training needs about them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, so that `to_device` can remember its answers
class Dataset:
    """Images with labels, whole and in memory; nothing is normalised or augmented yet.

    Attributes:
        name: what the user calls it.
        classes: number of classes; every label is in [0, classes).
        class_names: one name a class, in label order.
        x_train, x_test: images, (N, C, H, W), uint8, or float32 when the source has floats.
        y_train, y_test: labels, (N,), int64.
        mean, std: of each channel over `x_train`, (C,), float32, in the units of the stored pixels
            (0 to 255 for uint8), so that `normalise` needs to know nothing else.
        crop: random crops are taken after padding by this many pixels on each side; 0 for no crops.
        flip: whether training images may be mirrored left to right.
        task: `classify`; the loss is the cross-entropy over the last dimension.
    """

    name: str
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
    task: str = "classify"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.x_train.shape[1:]
        return channels, height, width


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (C,) float32, of images (N, C, H, W) of any dtype.

    Two passes over slices of 1024 images: exact enough for far-off means, and never a float copy of the whole set.
    A constant channel gets a standard deviation of 1, so that dividing by it is harmless.
    """
    pixels = images.numel() / images.shape[1]
    mean = sum(part.double().sum((0, 2, 3)) for part in images.split(1024)) / pixels
    centre = mean.view(-1, 1, 1)
    variance = sum((part.double() - centre).square_().sum((0, 2, 3)) for part in images.split(1024)) / pixels
    std = variance.sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()
