"""The frozen weights of a network with adapters, as one vector: they travel to each client once."""

import torch
from torch import Tensor, nn

from fedsparse.vector import Layout


class Frozen:
    """The parameters of a network that are not trained.

    Attributes:
        layout: of the vector; empty for a network that trains all its weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self.layout = Layout.of_frozen(module)
        self._parameters = [p for p in module.parameters() if not p.requires_grad]

    @property
    def vector(self) -> Tensor:
        """A copy of the weights, float32, shape ``(layout.size,)``, on the CPU."""
        return torch.cat([p.detach().reshape(-1).float().cpu() for p in self._parameters])

    def load(self, vector: Tensor) -> None:
        """Replace the weights."""
        for parameter, entry in zip(self._parameters, self.layout.entries, strict=True):
            parameter.data.copy_(vector[entry.slice].view(entry.shape))
