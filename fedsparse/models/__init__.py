"""Networks. To add one, write a function ``(input_shape, classes, norm, width) -> nn.Module`` and a catalogue line.

A network of the user's own is a class or function that is called with ``input_shape`` and ``classes``, by name, and
with ``norm`` and ``width`` if its signature has them. It must return an ``nn.Module``. For images, ``input_shape`` is
(channels, height, width), and the module maps float32 ``(batch, *input_shape)`` to scores ``(batch, classes)``. For
text, ``input_shape`` is (tokens of a window,), ``classes`` is the size of the vocabulary, and the module maps int64
``(batch, tokens)`` to scores ``(batch, tokens, classes)`` of each next token.
"""

import torch
from torch import nn

from fedsparse.catalogue import MODELS, TEXT_MODELS
from fedsparse.errors import ConfigError
from fedsparse.plugins import call, named


def build_model(
    name: str, input_shape: tuple[int, ...], classes: int, norm: str, seed: int, width: float = 1.0
) -> nn.Module:
    """The named network on the CPU, its initial weights a function of ``seed`` alone.

    Args:
        name: a key of ``MODELS``, or a reference to the user's own; ``auto`` is cnn-small or gpt2-nano, as the data is.
        input_shape: of one sample: channels, height, width of an image, or tokens of a window of text.
        classes: number of outputs.
        norm: "batch" or "group", for networks that normalise.
        seed: of the weights; torch's global random state does not change.
        width: multiplies the channels and units of every hidden layer, each at least 1.

    Raises:
        ConfigError: the model reads text and the samples are images, or the other way round; or the user's own does
            not return a module.
    """
    name = model_for(name, input_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = {"norm": norm} if width == 1.0 else {"norm": norm, "width": width}
        model = call(named(MODELS, name), input_shape=input_shape, classes=classes, **settings)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model = {name}: should give a torch.nn.Module, not {type(model).__name__}")
    return model


def model_for(name: str, input_shape: tuple[int, ...]) -> str:
    """``name``, with ``auto`` replaced by the usual model for such samples.

    Raises:
        ConfigError: a model for text and samples that are images, or the other way round.
    """
    text = len(input_shape) == 1
    if name == "auto":
        return "gpt2-nano" if text else "cnn-small"
    if name in MODELS and (name in TEXT_MODELS) != text:
        kinds = ("images", "text")
        able = ", ".join(other for other in MODELS if (other in TEXT_MODELS) == text)
        raise ConfigError(f"model = {name}: reads {kinds[not text]}, and the data is {kinds[text]}; choose {able}")
    return name
