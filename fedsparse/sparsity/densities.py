"""How many weights each layer keeps at a given sparsity; the total is exact.

``er``: Erdos-Renyi, of Mocanu et al. 2018, and ``erk``: Erdos-Renyi kernel, both as in Evci et al. 2020, "Rigging the
Lottery" (section 3, sparsity distribution).
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Literal

from fedsparse.sparsity.topology import Layer

SparsityOf = Literal["all", "prunable"]


def budget(layers: Sequence[Layer], sparsity: float, of: SparsityOf = "all") -> int:
    """How many prunable weights may exist, so that the share ``sparsity`` of some weights does not.

    Args:
        of: ``all`` means the weights of all layers. Dense layers then count, and the prunable ones are so much sparser;
            the model has the sparsity that was asked for. ``prunable`` means the prunable layers alone. RigL's code
            does that, and its only dense layer is the first (``dense-layers`` first).

    Raises:
        ValueError: the sparsity is outside [0, 1], or leaves fewer weights than the dense layers alone have.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity = {sparsity}: should be within 0 and 1")
    total = sum(layer.size for layer in layers)
    dense = sum(layer.size for layer in layers if layer.dense)
    if of == "prunable":
        return round((1 - sparsity) * (total - dense))
    keep = round((1 - sparsity) * total)
    if keep < dense:
        names = ", ".join(layer.name for layer in layers if layer.dense)
        raise ValueError(
            f"sparsity = {sparsity} keeps {keep:,} of {total:,} weights, but {dense:,} are in dense layers ({names}): "
            f"ask for at most {1 - dense / total:.4f}, or for fewer dense-layers"
        )
    return keep - dense


def erk(layers: Sequence[Layer], sparsity: float, of: SparsityOf = "all") -> tuple[int, ...]:
    """Densities in proportion to ``sum(shape) / prod(shape)`` of a layer, so that small layers stay denser.

    Args:
        layers: the shape is that of one group, so that a depthwise 3x3 layer has ``(1 + 1 + 3 + 3) / 9``.
        sparsity, of: as for ``budget``.

    Returns:
        One count a layer. Those of the prunable layers sum to the budget exactly.

    Raises:
        ValueError: see ``budget``.
    """
    return _allocate(layers, sparsity, of, lambda layer: sum(layer.group_shape) / prod(layer.group_shape))


def er(layers: Sequence[Layer], sparsity: float, of: SparsityOf = "all") -> tuple[int, ...]:
    """Densities in proportion to ``(inputs + outputs) / (inputs * outputs)`` of a layer, whatever its kernel.

    In a network with a wide linear layer, a small convolution keeps several times as many weights as by ``erk``.
    Arguments, result and errors as ``erk``.
    """
    return _allocate(layers, sparsity, of, lambda layer: sum(layer.group_shape[:2]) / prod(layer.group_shape[:2]))


def uniform(layers: Sequence[Layer], sparsity: float, of: SparsityOf = "all") -> tuple[int, ...]:
    """The same density in every layer that is not dense. Arguments, result and errors as ``erk``."""
    return _allocate(layers, sparsity, of, lambda layer: 1.0)


DISTRIBUTIONS: dict[str, Callable[[Sequence[Layer], float, SparsityOf], tuple[int, ...]]] = {
    "erk": erk,
    "er": er,
    "uniform": uniform,
}


def _allocate(
    layers: Sequence[Layer], sparsity: float, of: SparsityOf, raw: Callable[[Layer], float]
) -> tuple[int, ...]:
    """Counts at densities of ``min(scale * raw(layer), 1)``, with the one scale that meets the budget."""
    keep = budget(layers, sparsity, of)
    prunable = [layer for layer in layers if not layer.dense]
    free, full = prunable, list[Layer]()
    while free:
        left = keep - sum(layer.size for layer in full)
        scale = left / sum(raw(layer) * layer.size for layer in free)
        exceeding = [layer for layer in free if scale * raw(layer) > 1]
        if not exceeding:
            break
        full += exceeding
        free = [layer for layer in free if layer not in exceeding]
    counts = {layer.name: layer.size for layer in layers}
    counts |= {layer.name: round(scale * raw(layer) * layer.size) for layer in free}
    # Rounding leaves a residue of less than one weight a layer. The largest layer that has room takes it.
    residue = keep - sum(counts[layer.name] for layer in prunable)
    for layer in sorted(prunable, key=lambda layer: -layer.size):
        share = min(max(residue, -counts[layer.name]), layer.size - counts[layer.name])
        counts[layer.name] += share
        residue -= share
    return tuple(counts[layer.name] for layer in layers)
