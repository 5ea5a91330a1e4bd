"""FedAvgM (Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution", section 4.3).

With Nesterov's momentum, and AdamW at the clients, this is DiLoCo (Douillard et al. 2023, "DiLoCo: distributed
low-communication training of language models", algorithm 1), whose outer gradient is minus the mean update.
"""

from torch import Tensor

from fedsparse.strategies.server_optimizer import ServerOptimizer


class FedAvgM(ServerOptimizer):
    """v <- beta v + update;  w <- w + server_lr v, with beta = server_momentum.

    With server_nesterov:  w <- w + server_lr (update + beta v), as torch's SGD has it.
    """

    def moments(self) -> dict[str, float]:
        return {"velocity": 0.0}

    def step(self, mean: Tensor) -> Tensor:
        beta, velocity = self.config.server_momentum, self.memory["velocity"]
        velocity.mul_(beta).add_(mean)
        return (mean.add_(velocity, alpha=beta) if self.config.server_nesterov else velocity) * self.lr
