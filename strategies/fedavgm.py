"""FedAvgM (Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution", section 4.3)."""

from torch import Tensor

from strategies.server_optimizer import ServerOptimizer


class FedAvgM(ServerOptimizer):
    """v <- beta v + update;  w <- w + server_lr v, with beta = server_momentum."""

    def moments(self) -> dict[str, float]:
        return {"velocity": 0.0}

    def step(self, mean: Tensor) -> Tensor:
        return self.memory["velocity"].mul_(self.config.server_momentum).add_(mean) * self.lr
