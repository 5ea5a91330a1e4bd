"""Ways to run a network that change its speed or memory, but not its results."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedsparse.models.chain import chain_of, has_weights

BLOCKS = ("BasicBlock", "Bottleneck", "InvertedResidual", "Block")
"""Residual blocks of torchvision and of GPT-2, by name, because importing torchvision takes a second."""


def recompute(model: nn.Module, segments: int | str) -> None:
    """Let the backward pass compute activations again that the forward pass does not keep, in place.

    Args:
        segments: ``blocks``, ``auto``, or a number, as in the setting ``recompute_segments``.

    Raises:
        ValueError: pieces of a network that is no chain of layers.
    """
    if segments == "blocks":
        recompute_blocks(model)
        return
    chain = chain_of(model)
    starts = [place for place, module in enumerate(chain) if has_weights(module)]
    layers = sum(not any(module.children()) for module in model.modules())  # normalisation and ReLU keep inputs too
    count = min(round(layers**0.5) if segments == "auto" else int(segments), len(starts))
    bounds = [0, *(starts[len(starts) * k // count] for k in range(1, count)), len(chain)]
    recompute_pieces(model, [nn.Sequential(*chain[a:b]) for a, b in pairwise(bounds)])


def recompute_pieces(model: nn.Module, pieces: list[nn.Sequential]) -> None:
    """Make the forward pass keep only the inputs of these pieces of a chain, in place.

    Chen et al. 2016, "Training deep nets with sublinear memory cost", section 4.3: with about sqrt(n) pieces of n
    layers, what is kept and what one piece needs when it is computed again are both about sqrt(n).
    """

    def forward(x: Tensor) -> Tensor:
        for piece in pieces[:-1]:
            x = checkpoint(piece, x, use_reentrant=False, context_fn=partial(_contexts, piece))
        scores: Tensor = pieces[-1](x)  # kept, because the backward pass begins with it
        return scores

    model.forward = forward


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
    momenta, counters = [layer.momentum for layer in layers], [b for b in block.buffers() if not b.is_floating_point()]
    counted = [counter.clone() for counter in counters]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for counter, before in zip(counters, counted, strict=True):
            counter.copy_(before)
