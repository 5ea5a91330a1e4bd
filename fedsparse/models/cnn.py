"""Small convolutional networks of the federated learning papers. They have no normalisation layers."""

from torch import nn

Shape = tuple[int, int, int]


def cnn(input_shape: Shape, classes: int, norm: str) -> nn.Module:
    """The CNN of McMahan et al. 2017 (section 3): two 5x5 convolutions of 32 and 64 channels, 512 hidden units.

    1,663,370 weights for 28x28 grey images and ten classes.
    """
    return _two_convolutions(input_shape, classes, channels=(32, 64), hidden=512, kernel=5)


def cnn_small(input_shape: Shape, classes: int, norm: str) -> nn.Module:
    """The same form, for a laptop: 3x3 convolutions of 16 and 32 channels, 32 hidden units (55,338 weights)."""
    return _two_convolutions(input_shape, classes, channels=(16, 32), hidden=32, kernel=3)


def lenet5(input_shape: Shape, classes: int, norm: str) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) as it is used today: ReLU and max pooling; grey 28x28 images are padded to 32x32."""
    channels, height, width = input_shape
    padding = 2 if height < 32 else 0
    height, width = ((s + 2 * padding - 4) // 2 for s in (height, width))
    height, width = ((s - 4) // 2 for s in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * height * width, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, classes),
    )


def _two_convolutions(
    input_shape: Shape, classes: int, *, channels: tuple[int, int], hidden: int, kernel: int
) -> nn.Module:
    first, second = channels
    features = second * (input_shape[1] // 4) * (input_shape[2] // 4)
    # Pooling before the rectifier gives the same numbers (both are monotone) for a quarter of its work.
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
