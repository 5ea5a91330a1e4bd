"""Networks by name. Adding one is one function `(input_shape, classes, norm, width) -> nn.Module` and one line here."""

import torch
from torch import nn

from fedsparse.models.cnn import cnn, cnn_small, lenet5
from fedsparse.models.mlp import mlp, mlp_small
from fedsparse.models.vision import mobilenet_v2, resnet18, resnet50, vgg11, vgg16

MODELS = {
    "mlp": mlp,
    "mlp-small": mlp_small,
    "cnn": cnn,
    "cnn-small": cnn_small,
    "lenet5": lenet5,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "mobilenet_v2": mobilenet_v2,
}


def build_model(
    name: str, input_shape: tuple[int, int, int], classes: int, norm: str, seed: int, width: float = 1.0
) -> nn.Module:
    """The named network on the CPU, its initial weights a function of ``seed`` alone.

    Args:
        name: a key of ``MODELS``.
        input_shape: channels, height, width of one image.
        classes: number of outputs.
        norm: "batch" or "group", for networks that normalise.
        seed: of the weights; the global random state of torch is left as it was.
        width: multiplies the channels and units of every hidden layer; at least one of each remains.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name](input_shape, classes, norm, width)
