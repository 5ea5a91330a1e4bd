"""Ways to run a network that change its speed or memory, but not its results."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

BLOCKS = ("BasicBlock", "Bottleneck", "InvertedResidual", "Block")
"""Residual blocks of torchvision and of GPT-2, by name, because importing torchvision takes a second."""


def recompute_blocks(model: nn.Module) -> None:
    """Make the forward pass keep only the inputs of residual blocks; the backward pass computes the rest again.

    Chen et al. 2016, "Training deep nets with sublinear memory cost". The model is changed in place; without residual
    blocks it stays as it is.
    """
    for block in model.modules():
        if type(block).__name__ in BLOCKS:
            contexts = partial(_contexts, block)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts in which the forward pass and its repetition run."""
    return nullcontext(), _statistics_as_they_are(block)


@contextmanager
def _statistics_as_they_are(block: nn.Module) -> Iterator[None]:
    """Keep running statistics, of BatchNorm and of quantised inputs, from counting a batch a second time."""
    layers: list[Any] = [m for m in block.modules() if hasattr(m, "momentum")]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
