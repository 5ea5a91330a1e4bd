"""Networks. To add one, write a function ``(input_shape, classes, norm, width) -> nn.Module`` and a catalogue line.

A network of the user's own is a class or function that is called with ``input_shape`` and ``classes``, by name, and
with ``norm`` and ``width`` if its signature has them. It must return an ``nn.Module`` from images, float32
``(batch, channels, height, width)``, to scores ``(batch, classes)``; or from windows of text, int64
``(batch, tokens)``, to scores ``(batch, tokens, classes)``.
"""

import torch
from torch import nn

from fedsparse.catalogue import MODELS
from fedsparse.errors import ConfigError
from fedsparse.plugins import call, named


def build_model(
    name: str, input_shape: tuple[int, ...], classes: int, norm: str, seed: int, width: float = 1.0
) -> nn.Module:
    """The named network on the CPU, its initial weights a function of ``seed`` alone.

    Args:
        name: a key of ``MODELS``, or a reference to the user's own.
        input_shape: the shape of one input: (channels, height, width) of an image, (tokens,) of a window of text.
        classes: number of outputs.
        norm: "batch" or "group", for networks that normalise.
        seed: of the weights; torch's global random state does not change.
        width: multiplies the channels and units of every hidden layer, each at least 1.

    Raises:
        ConfigError: the user's own does not return a module.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = {"norm": norm} if width == 1.0 else {"norm": norm, "width": width}
        model = call(named(MODELS, name), input_shape=input_shape, classes=classes, **settings)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model = {name}: should give a torch.nn.Module, not {type(model).__name__}")
    return model
