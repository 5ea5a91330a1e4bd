"""Layers whose weights are a few shared values and zeros, which are trained together.

Han et al. 2016 (see the package), section 3 and figure 3: the weights of a cluster have one value, and their gradients
move it. The paper adds these gradients up, and takes a small learning rate. Here a value moves by their mean, so that
the learning rate means what it means for the weights themselves: the step is the closest to that of the free weights.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedsparse.packing.kmeans import kmeans
from fedsparse.quantisation.straight_through import StraightThrough

TRAINED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)
"""Modules that compute with ``self.weight`` as it is at each call. Shared values of other modules are not trained."""


@dataclass(frozen=True)
class SharedWeights:
    """A tensor of zeros and a few values.

    Attributes:
        shape: of the tensor.
        codes: int64, flat; 0 for a weight that is 0, and ``c`` for ``values[c - 1]``.
        values: float32.
    """

    shape: tuple[int, ...]
    codes: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, weight: Tensor, clusters: int) -> "SharedWeights":
        """The weights that are not 0 in at most ``clusters`` clusters."""
        flat = weight.detach().float().flatten().cpu().numpy()
        kept = flat != 0
        values, codes = kmeans(flat[kept], clusters)
        every = np.zeros(flat.size, np.int64)
        every[kept] = codes + 1
        return cls(tuple(weight.shape), every, values)

    def tensor(self) -> Tensor:
        """The weights, float32."""
        table = np.concatenate([np.zeros(1, np.float32), self.values])
        return torch.from_numpy(table[self.codes]).view(self.shape)


class _Looked(nn.Module):
    """The parametrization of a weight tensor by its shared values."""

    codes: Tensor
    members: Tensor

    def __init__(self, shared: SharedWeights) -> None:
        super().__init__()
        self.register_buffer("codes", torch.from_numpy(shared.codes).view(shared.shape), persistent=False)
        members = np.bincount(shared.codes, minlength=shared.values.size + 1)[1:]
        self.register_buffer("members", torch.from_numpy(members), persistent=False)
        self.start = torch.from_numpy(shared.values.copy())

    def forward(self, values: Tensor) -> Tensor:
        averaged: Tensor = StraightThrough.apply(values, values, 1 / self.members)
        return nn.functional.pad(averaged, (1, 0))[self.codes]

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self.start.to(weight)


def share(module: nn.Module, shared: dict[str, SharedWeights]) -> None:
    """Let the parameters of these names be shared values, in place. What cannot be trained so is frozen."""
    for name, weights in shared.items():
        path, _, attribute = name.rpartition(".")
        part = module.get_submodule(path)
        if isinstance(part, TRAINED) and attribute == "weight" and weights.values.size:
            looked = _Looked(weights).to(part.weight.device)
            parametrize.register_parametrization(part, attribute, looked, unsafe=True)
        else:
            parameter = part.get_parameter(attribute)
            parameter.requires_grad_(False).copy_(weights.tensor())


@torch.no_grad()
def trained(module: nn.Module, shared: dict[str, SharedWeights]) -> dict[str, SharedWeights]:
    """The shared values as they are after training."""
    found = {}
    for name, weights in shared.items():
        path, _, attribute = name.rpartition(".")
        part = module.get_submodule(path)
        values = weights.values
        if parametrize.is_parametrized(part, attribute):
            values = part.parametrizations[attribute].original.cpu().numpy().copy()  # type: ignore[index,union-attr]
        found[name] = SharedWeights(weights.shape, weights.codes, values)
    return found
