"""Networks of linear layers only."""

import math
from itertools import pairwise

from torch import nn

from fedsparse.models.cnn import Shape, scaled


def mlp(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """The 2NN of McMahan et al. 2017 (section 3): two hidden layers of 200 units (199,210 weights for 28x28 images)."""
    return _layers(math.prod(input_shape), scaled(200, width), scaled(200, width), classes)


def mlp_small(input_shape: Shape, classes: int, norm: str, width: float = 1.0) -> nn.Module:
    """One hidden layer of 32 units (25,450 weights for 28x28 images)."""
    return _layers(math.prod(input_shape), scaled(32, width), classes)


def _layers(*units: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(units):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])
