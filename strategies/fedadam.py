"""FedAdam (Reddi et al. 2021, "Adaptive federated optimization", algorithm 2)."""

from torch import Tensor

from fedsparse.strategies.server_optimizer import ServerOptimizer


class FedAdam(ServerOptimizer):
    """m <- b1 m + (1 - b1) update;  v <- b2 v + (1 - b2) update^2;  w <- w + server_lr m / (sqrt(v) + tau).

    b1 = server_momentum, b2 = server_beta2, tau = server_tau. As in the paper, v starts at tau^2 and there is no bias
    correction.
    """

    usual_lr = 0.01

    def moments(self) -> dict[str, float]:
        return {"first": 0.0, "second": self.config.server_tau**2}

    def step(self, mean: Tensor) -> Tensor:
        first, second = self.memory["first"], self.memory["second"]
        first.lerp_(mean, 1 - self.config.server_momentum)
        second.mul_(self.config.server_beta2).addcmul_(mean, mean, value=1 - self.config.server_beta2)
        return first / second.sqrt().add_(self.config.server_tau) * self.lr
