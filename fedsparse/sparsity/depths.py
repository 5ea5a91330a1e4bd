"""Clients of several depths: each trains the first classifiers of a network with exits, and the layers before them.

DepthFL: Kim et al. 2023, "DepthFL: Depthwise Federated Learning for Heterogeneous Clients", section 3.1. The part of a
client is a topology, so that its update holds the weights of its own layers alone, and a weight is averaged over the
clients that train it.
"""

import numpy as np
import torch

from fedsparse.models.exits import stage_of
from fedsparse.network import Quantity
from fedsparse.seeds import derive_seed
from fedsparse.sparsity.topology import Topology
from fedsparse.vector import Layout


def depth_of(client: int, depths: str, most: int, seed: int) -> int:
    """How many classifiers a client trains in the whole run, 1 to ``most``.

    Args:
        depths: the text of a ``Quantity``, whose draw is rounded; of ``uniform``, each whole number from LOW to HIGH is
            as likely as the others.
    """
    quantity = Quantity.parse(depths)
    if quantity.kind == "uniform":
        quantity = Quantity("uniform", quantity.first - 0.5, quantity.second + 0.5)
    drawn = quantity.draw(np.random.default_rng(derive_seed(seed, "depth", partition_id=client)))
    return min(max(round(drawn), 1), most)


def part_of(layout: Layout, depth: int) -> Topology:
    """The weights of the first ``depth`` stages, of the layout of a ``models.exits.Exits``."""
    mask = torch.zeros(layout.parameters, dtype=torch.bool)
    for entry in layout.trainable:
        mask[entry.slice] = stage_of(entry.name) < depth
    return Topology((), mask, part=True)
