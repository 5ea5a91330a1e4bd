"""Which layers of a network low-rank layers or adapters may replace."""

from collections.abc import Sequence

from torch import nn

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
