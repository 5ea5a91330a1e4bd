"""FedAvgM (Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution", section 4.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsparse.config import Config
from fedsparse.vector import Layout
from strategies.fedavg import FedAvg


class FedAvgM(FedAvg):
    """v <- beta v + update;  w <- w + server_lr v, with beta = server_momentum."""

    def __init__(self, config: Config, layout: Layout, weights: Tensor, nodes: Sequence[int]) -> None:
        super().__init__(config, layout, weights, nodes)
        self.velocity = torch.zeros(layout.parameters)

    def server_step(self, update: Tensor) -> Tensor:
        self.velocity.mul_(self.config.server_momentum).add_(update)
        return self.velocity * self.config.server_lr
