"""Layers that are small in themselves: of low rank, with factors as parameters in place of the weights.

A network with such layers is a module like any other, so that training, compression and layouts need not know of them.
A rank of 0 stands for a layer that stays dense.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from fedsparse.catalogue import LOWRANK_FORMS
from fedsparse.plugins import named

Dense = nn.Linear | nn.Conv2d
"""What can be factored."""


def factorable(model: nn.Module, dense: Sequence[str]) -> dict[str, Dense]:
    """The layers by name that can be factored, in the order of the network.

    Other classes, such as attention's own projections in torch, use their weight in other ways than by calling the
    layer; a weight of two names is tied, and the factors of one layer would untie it.

    Args:
        dense: the names of layers to leave out.
    """
    uses = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    return {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) in (nn.Linear, nn.Conv2d)
        and getattr(layer, "groups", 1) == 1
        and uses.count(id(layer.weight)) == 1
        and name not in dense
    }


def rank_of(asked: float, largest: int) -> int:
    """The rank that the setting ``lowrank-rank`` means for a matrix whose largest rank is ``largest``."""
    return max(1, min(largest, round(asked * largest) if asked < 1 else round(asked)))


def smaller_rank(form: str, layer: Dense, asked: float) -> int:
    """The rank of a layer; 0 where its factors would have as many weights as the layer itself, or more."""
    made = named(LOWRANK_FORMS, form)
    rank = rank_of(asked, made.largest_rank(layer))
    return rank if made.size(layer, rank) < layer.weight.numel() else 0


def factor_(model: nn.Module, ranks: Mapping[str, int], form: str, seed: int) -> nn.Module:
    """Replace the layers named in ``ranks`` by new ones of these ranks, at random; a rank of 0 changes nothing.

    Args:
        seed: of the new weights; torch's global random state does not change.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, rank in ranks.items():
            if rank:
                model.set_submodule(name, named(LOWRANK_FORMS, form)(model.get_submodule(name), rank))
    return model
