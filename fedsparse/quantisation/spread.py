"""The quantised weights that a client receives, spread over the float weights that round to them.

The server's float weights lie anywhere between two levels. If a client trained from the levels themselves, a weight
would have to move by half a step before the network computes with another level, which the few steps of a round seldom
reach: the client would take all its steps at the same point. From weights that are spread at random, a small move
changes as many levels as it would on the server, on average, and the client still begins at the network it was sent.
All clients of a round draw the same noise.
"""

import torch

from fedsparse.quantisation.quantised_layers import few_bits_layers
from fedsparse.sparsity import Topology
from fedsparse.vector import FlatModel


@torch.no_grad()
def spread_weights(model: FlatModel, topology: Topology, seed: int) -> None:
    """Spread the quantised weights that ``model`` holds, in place; weights that do not exist stay 0."""
    quantised, draw = few_bits_layers(model.module), torch.Generator().manual_seed(seed)
    for entry in model.layout.trainable:
        if entry.name in quantised:
            weight, quantiser = quantised[entry.name]
            noise = torch.rand(entry.shape, generator=draw).to(weight.device) - 0.5
            noise *= topology.mask[entry.slice].view(entry.shape)
            sent = quantiser.levels(weight)
            spread = quantiser.spread(sent, noise)
            step = quantiser.levels(spread).step  # a mean of the spread magnitudes, perhaps, and so not quite the sent
            weight.copy_(spread * torch.where(step > 0, sent.step / step, 1))
