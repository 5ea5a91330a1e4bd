"""FedAdam (Reddi et al. 2021, "Adaptive federated optimization", algorithm 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsparse.config import Config
from strategies.fedavg import FedAvg
from strategies.server_topology import ServerTopology


class FedAdam(FedAvg):
    """m <- b1 m + (1 - b1) update;  v <- b2 v + (1 - b2) update^2;  w <- w + server_lr m / (sqrt(v) + tau).

    b1 = server_momentum, b2 = server_beta2, tau = server_tau. As in the paper, v starts at tau^2 and there is no bias
    correction.
    """

    usual_lr = 0.01

    def __init__(self, config: Config, topology: ServerTopology, weights: Tensor, nodes: Sequence[int]) -> None:
        super().__init__(config, topology, weights, nodes)
        self.first = torch.zeros(self.layout.parameters)
        self.second = torch.full((self.layout.parameters,), config.server_tau**2)

    def server_step(self, update: Tensor) -> Tensor:
        b1, b2 = self.config.server_momentum, self.config.server_beta2
        self.first.lerp_(update, 1 - b1)
        self.second.mul_(b2).addcmul_(update, update, value=1 - b2)
        return self.first / self.second.sqrt().add_(self.config.server_tau) * self.server_lr

    def forget(self, stale: Tensor) -> None:
        self.first.masked_fill_(stale, 0)
        self.second.masked_fill_(stale, self.config.server_tau**2)
