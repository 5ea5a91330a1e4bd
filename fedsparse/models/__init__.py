"""Networks. To add one, write a function ``(input_shape, classes, norm, width) -> nn.Module`` and a catalogue line.

A network of the user's own is a class or function that is called with ``input_shape`` and ``classes``, by name, and
with ``norm`` and ``width`` if its signature has them. It must return an ``nn.Module``. For images, ``input_shape`` is
(channels, height, width), and the module maps float32 ``(batch, *input_shape)`` to scores ``(batch, classes)``. For
text, ``input_shape`` is (tokens of a window,), ``classes`` is the size of the vocabulary, and the module maps int64
``(batch, tokens)`` to scores ``(batch, tokens, classes)`` of each next token. For a data set of another kind, the
module maps what the data set gives to what its task takes.
"""

import torch
from torch import nn

from fedsparse.catalogue import MODELS, MODELS_OF, USUAL_MODEL
from fedsparse.errors import ConfigError
from fedsparse.plugins import call, named


def build_model(
    name: str, input_shape: tuple[int, ...], classes: int, norm: str, seed: int, width: float = 1.0
) -> nn.Module:
    """The named network on the CPU, its initial weights a function of ``seed`` alone.

    Args:
        name: a key of ``MODELS``, or a reference to the user's own.
        input_shape: of one sample: channels, height, width of an image, or tokens of a window of text.
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


def model_for(name: str, kind: str | None) -> str:
    """``name``, with ``auto`` replaced by the usual model for data of this kind.

    Args:
        kind: the ``kind`` of a ``partitions.Dataset``.

    Raises:
        ConfigError: a model for text and data that is images, or the other way round; or ``auto`` for another kind.
    """
    if name == "auto":
        if kind not in USUAL_MODEL:
            usual = " and ".join(f"{model} for {known}" for known, model in USUAL_MODEL.items())
            raise ConfigError(f"model = auto: means {usual}, and the data is neither; name a model")
        return USUAL_MODEL[kind]
    if kind in MODELS_OF and name in MODELS and name not in MODELS_OF[kind]:
        able, reads = ", ".join(MODELS_OF[kind]), next(other for other in MODELS_OF if name in MODELS_OF[other])
        raise ConfigError(f"model = {name}: reads {reads}, and the data is {kind}; choose {able}")
    return name
