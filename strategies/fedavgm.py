"""FedAvgM (Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution", section 4.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsparse.config import Config
from strategies.fedavg import FedAvg
from strategies.server_topology import ServerTopology


class FedAvgM(FedAvg):
    """v <- beta v + update;  w <- w + server_lr v, with beta = server_momentum."""

    def __init__(self, config: Config, topology: ServerTopology, weights: Tensor, nodes: Sequence[int]) -> None:
        super().__init__(config, topology, weights, nodes)
        self.velocity = torch.zeros(self.layout.parameters)

    def server_step(self, update: Tensor) -> Tensor:
        self.velocity.mul_(self.config.server_momentum).add_(update)
        return self.velocity * self.server_lr

    def forget(self, stale: Tensor) -> None:
        self.velocity.masked_fill_(stale, 0)
