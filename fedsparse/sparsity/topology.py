"""The topology: which weights of a model exist, stored as an explicit mask and never inferred from ``w != 0``."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from fedsparse.vector import Entry, Layout

WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.RNNBase, nn.MultiheadAttention)


@dataclass(frozen=True)
class Layer(Entry):
    """The weight tensor of a convolution or linear layer, and where it stands in the flat vector.

    Attributes:
        groups: of a convolution; each group has its own inputs and outputs.
        dense: never pruned. It counts towards the sparsity of the model, but a coded mask leaves it out.
    """

    groups: int = 1
    dense: bool = False

    @property
    def group_shape(self) -> tuple[int, ...]:
        """Shape of one group's weights; of a depthwise convolution ``(1, 1, height, width)``."""
        return (self.shape[0] // self.groups, *self.shape[1:])


def weight_layers(
    model: nn.Module, layout: Layout, dense_layers: Sequence[str] = ("first", "last"), setting: str = "dense-layers"
) -> tuple[Layer, ...]:
    """The convolution and linear weights of ``model``, in layout order.

    Args:
        model: the network that ``layout`` describes.
        layout: from ``Layout.of(model)``. A frozen weight, and a weight tied to an earlier embedding, have no entry in
            the layout, so that they do not become layers.
        dense_layers: which layers stay dense: ``first``, ``last``, or names such as ``fc1`` or ``fc1.weight``.
        setting: that gave ``dense_layers``, for messages.

    Raises:
        ValueError: a name in ``dense_layers`` that no layer has.
    """
    groups = {
        f"{prefix}.{name}".lstrip("."): getattr(module, "groups", 1)
        for prefix, module in model.named_modules()
        if isinstance(module, WITH_WEIGHTS)
        for name, parameter in module.named_parameters(recurse=False)
        if "weight" in name and parameter.dim() > 1
    }
    entries = [e for e in layout.trainable if e.name in groups]
    dense = set[str]()
    for wanted in dense_layers:
        ends = {"first": entries[:1], "last": entries[-1:]}
        found = ends.get(wanted, [e for e in entries if wanted in (e.name, e.name.removesuffix(".weight"))])
        if not found and wanted not in ends:
            raise ValueError(f"{setting}: no layer {wanted!r}; there are {', '.join(e.name for e in entries)}")
        dense.update(e.name for e in found)
    return tuple(Layer(e.name, e.shape, e.start, e.size, groups[e.name], e.name in dense) for e in entries)


@dataclass(frozen=True, eq=False)
class Topology:
    """The weights that exist, on the flat vector of ``vector.Layout``. Immutable: a change makes a new topology.

    A checkpoint needs ``mask`` and ``version``: the layers follow from the model.

    Attributes:
        layers: the weight layers, prunable and dense.
        mask: bool, shape ``(layout.parameters,)``. Biases, normalisation and dense layers are True, so that
            ``mask * vector`` is the sparse model.
        version: 0 at first, one more with each change.
        part: whether it is the part of a client that trains only some layers, and lacks even biases of the others.
    """

    layers: tuple[Layer, ...]
    mask: Tensor
    version: int = 0
    part: bool = False

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or self.mask.dim() != 1:
            raise ValueError(f"a mask is a bool vector, not {self.mask.dtype} of shape {tuple(self.mask.shape)}")
        if not self.part and not bool(self.mask.all()) and not bool((self.mask | self.prunable).all()):
            raise ValueError("a mask is True wherever nothing can be pruned")

    @classmethod
    def full(cls, layers: tuple[Layer, ...], parameters: int) -> "Topology":
        """Every weight exists."""
        return cls(layers, torch.ones(1, dtype=torch.bool).expand(parameters))  # one byte in memory

    @classmethod
    def random(
        cls, layers: tuple[Layer, ...], parameters: int, counts: Sequence[int], generator: torch.Generator
    ) -> "Topology":
        """``counts[l]`` weights of each layer, uniformly at random from a CPU generator (same bits on every device)."""
        mask = torch.ones(parameters, dtype=torch.bool)
        for layer, count in zip(layers, counts, strict=True):
            if not layer.dense:
                mask[layer.slice] = False
                mask[layer.start + torch.randperm(layer.size, generator=generator)[:count]] = True
        return cls(layers, mask)

    @cached_property
    def prunable(self) -> Tensor:
        """bool, shape ``(parameters,)``: True for the weights of layers that are not dense."""
        prunable = torch.zeros_like(self.mask)
        for layer in self.layers:
            prunable[layer.slice] = not layer.dense
        return prunable

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Existing weights of each layer."""
        return tuple(int(self.mask[layer.slice].sum()) for layer in self.layers)

    @property
    def density(self) -> float:
        """Existing share of all convolution and linear weights, dense layers included."""
        return sum(self.counts) / max(sum(layer.size for layer in self.layers), 1)

    @cached_property
    def hash(self) -> int:
        """A 64-bit hash that names the mask in every message; independent of the version."""
        return xxhash.xxh3_64_intdigest(np.packbits(self.mask.cpu().numpy()).tobytes())

    def changed(self, mask: Tensor, *, counts: bool = False) -> "Topology":
        """The next version, with this mask; ``self`` when the mask is the same, so that no mask travels.

        Args:
            mask: bool, shape ``(parameters,)``.
            counts: whether layers may gain or lose weights.

        Raises:
            ValueError: a layer's count would change against ``counts``, or a dense layer would be pruned.
        """
        if torch.equal(mask, self.mask):
            return self
        new = Topology(self.layers, mask, self.version + 1)
        if not counts and new.counts != self.counts:
            raise ValueError(f"the counts of a topology are fixed: {self.counts} would become {new.counts}")
        return new

    def apply_(self, vector: Tensor) -> Tensor:
        """Set the weights that do not exist to exactly 0, in place: never to -0, and NaN too.

        Args:
            vector: shape ``(parameters,)`` or ``(layout.size,)``; buffers keep their values.
        """
        vector[: self.mask.numel()].masked_fill_(~self.mask, 0)
        return vector

    def to(self, device: torch.device | str) -> "Topology":
        if self.mask.device == torch.device(device):
            return self
        return Topology(self.layers, self.mask.to(device), self.version, self.part)


def initialise_(weights: Tensor, topology: Topology) -> Tensor:
    """Scale the initial weights of a dense model for a random topology, in place, and apply the topology.

    The weights of a layer of density d are multiplied by 1 / sqrt(d). Every unit adds up only d times as many inputs,
    and this factor keeps the variance of the sum (Evci et al. 2022, "Gradient Flow in Sparse Neural Networks", section
    3). Without it a network of density 0.05 may not learn at all.

    Args:
        weights: shape ``(parameters,)`` or ``(layout.size,)``.
    """
    for layer, count in zip(topology.layers, topology.counts, strict=True):
        weights[layer.slice] *= (layer.size / max(count, 1)) ** 0.5
    return topology.apply_(weights)
