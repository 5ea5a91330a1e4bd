"""A model as one flat float32 vector, and the layout of that vector.

The order is fixed: trainable parameters as ``named_parameters`` gives them, then floating-point buffers, such as
BatchNorm's running statistics, as ``named_buffers`` gives them. Frozen parameters travel
once, by a layout of their own, and integer buffers do not travel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import xxhash
from torch import Tensor, nn


@dataclass(frozen=True)
class Entry:
    """One tensor of the model: its name, its shape, and where it starts in the flat vector.

    Attributes:
        held: where a topology leaves out some of its elements, how many each row has; empty where it has all.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    size: int
    held: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def row_sizes(self) -> tuple[int, ...]:
        """How many elements each row has; a row is what belongs to one index of the first dimension."""
        rows = self.shape[0] if self.shape else 1
        return self.held or (self.size // rows if rows else 0,) * rows

    @property
    def slice(self) -> slice:
        """Where the tensor's elements are in the flat vector."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Layout:
    """The place of each tensor in a flat vector.

    Attributes:
        entries: one for each tensor, in the order of the vector.
        parameters: how many elements are trainable weights, whose update is compressed. The weights come first; the
            buffers behind them travel dense.
        size: how many elements the whole vector has.
        topology: the hash of the mask when the vector holds only the weights that exist; 0 when it holds all weights.
    """

    entries: tuple[Entry, ...]
    parameters: int
    size: int
    topology: int = 0

    @classmethod
    def of(cls, model: nn.Module) -> "Layout":
        """The layout of a model's trainable parameters and float buffers."""
        named: list[tuple[str, Tensor]] = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        parameters = sum(p.numel() for _, p in named)
        return cls._in_order(
            named + [(name, b) for name, b in model.named_buffers() if b.is_floating_point()], parameters
        )

    @classmethod
    def of_frozen(cls, model: nn.Module) -> "Layout":
        """The layout of the parameters that are not trained, which travel to each client once."""
        named: list[tuple[str, Tensor]] = [(name, p) for name, p in model.named_parameters() if not p.requires_grad]
        return cls._in_order(named, sum(p.numel() for _, p in named))

    @classmethod
    def _in_order(cls, named: Sequence[tuple[str, Tensor]], parameters: int) -> "Layout":
        entries, start = [], 0
        for name, tensor in named:
            entries.append(Entry(name, tuple(tensor.shape), start, tensor.numel()))
            start += tensor.numel()
        return cls(tuple(entries), parameters, start)

    @cached_property
    def fingerprint(self) -> int:
        """A 64-bit hash of all attributes: a client and a server with equal fingerprints agree on every coordinate."""
        text = repr([(e.name, e.shape) for e in self.entries]) + f" float32 {self.parameters}/{self.size}"
        text += f" topology {self.topology:016x}" if self.topology else ""
        return xxhash.xxh3_64_intdigest(text.encode())

    @cached_property
    def trainable(self) -> tuple[Entry, ...]:
        """The entries of the trainable parameters, without the buffers."""
        return tuple(e for e in self.entries if e.start < self.parameters)


class FlatModel:
    """A module whose trainable parameters and float buffers are views of one vector.

    Loading global weights is one ``vector.copy_``, and an update is one subtraction, whatever the number of tensors.

    Attributes:
        module: the wrapped module, changed in place.
        layout: of the vector.
        vector: float32, shape ``(layout.size,)``; writing to it changes the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layout = Layout.of(module)
        tensors: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        tensors += [b for b in module.buffers() if b.is_floating_point()]
        self.vector = torch.cat([t.detach().reshape(-1).float() for t in tensors])
        for entry, tensor in zip(self.layout.entries, tensors, strict=True):
            tensor.data = self.vector[entry.slice].view(entry.shape)

    def views(self, vector: Tensor) -> list[Tensor]:
        """Views of the trainable entries in ``vector``, of shape ``(layout.size,)`` or ``(layout.parameters,)``."""
        return [vector[e.slice].view(e.shape) for e in self.layout.trainable]


def digest(*weights: np.ndarray) -> bytes:
    """An 8-byte hash: when it is equal, a client and the server hold the same weights, bit for bit."""
    hashed = xxhash.xxh3_64()
    for part in weights:
        hashed.update(np.ascontiguousarray(part).data)
    return hashed.digest()


def round_hash(*weights: np.ndarray) -> int:
    """The first 48 bits of ``digest``: a whole number that a float64, and so every reader of a table, holds exactly."""
    return int.from_bytes(digest(*weights)[:6])
