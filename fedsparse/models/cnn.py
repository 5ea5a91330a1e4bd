"""Small convolutional networks of the federated learning papers, without normalisation layers."""

from torch import nn

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


def scaled(units: int, width: float) -> int:
    """The number of units of a layer in a network ``width`` times as wide; at least 1."""
    return max(1, round(units * width))


def cnn(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """The CNN of McMahan et al. 2017 (section 3): two 5x5 convolutions of 32 and 64 channels, 512 hidden units.

    1,663,370 weights for 28x28 grey images and ten classes.
    """
    return _two_convolutions(input_shape, classes, width, channels=(32, 64), hidden=512, kernel=5)


def cnn_small(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """A smaller network of the same form: 3x3 convolutions of 16 and 32 channels, 32 hidden units (55,338 weights)."""
    return _two_convolutions(input_shape, classes, width, channels=(16, 32), hidden=32, kernel=3)


def lenet5(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) as it is used today: ReLU and max pooling; grey 28x28 images are padded to 32x32."""
    channels, *size = input_shape
    padding = 2 if size[0] < 32 else 0
    h, w = (((s + 2 * padding - 4) // 2 - 4) // 2 for s in size)
    first, second, third, fourth = (scaled(n, width) for n in (6, 16, 120, 84))
    return nn.Sequential(
        nn.Conv2d(channels, first, 5, padding=padding),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * h * w, third),
        nn.ReLU(inplace=True),
        nn.Linear(third, fourth),
        nn.ReLU(inplace=True),
        nn.Linear(fourth, classes),
    )


def _two_convolutions(
    input_shape: Shape, classes: int, width: float, *, channels: tuple[int, int], hidden: int, kernel: int
) -> nn.Module:
    first, second, hidden = (scaled(n, width) for n in (*channels, hidden))
    features = second * (input_shape[1] // 4) * (input_shape[2] // 4)
    # Pooling before the rectifier saves three quarters of its work, and gives the same numbers, because both are
    # monotone.
    return nn.Sequential(
        nn.Conv2d(input_shape[0], first, kernel, padding=kernel // 2),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Conv2d(first, second, kernel, padding=kernel // 2),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, classes),
    )
