"""FedAvg's step (McMahan et al. 2017, algorithm 1), and the base class of the other server optimizers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedsparse.config import Config


class ServerOptimizer:
    """Turns the cohort's mean update into the server's step: here ``server_lr`` times that update.

    A subclass overrides ``step``, and ``moments`` when it keeps numbers for each weight. ``--strategy`` may name a
    subclass of the user's own, which is constructed with the same two arguments.

    Args:
        config: the settings.
        parameters: how many weights there are.

    Attributes:
        memory: the moments by name, float32, shape ``(parameters,)`` each.
    """

    usual_lr = 1.0
    """The learning rate that ``server-lr = auto`` stands for."""

    def __init__(self, config: Config, parameters: int) -> None:
        self.config = config
        self.lr = self.usual_lr if config.server_lr == "auto" else config.server_lr
        self.memory = {name: torch.full((parameters,), start) for name, start in self.moments().items()}

    def moments(self) -> dict[str, float]:
        """The name and the first value of each moment."""
        return {}

    def step(self, mean: Tensor) -> Tensor:
        """The change of the weights, float32, shape ``(parameters,)`` like ``mean``, which may be overwritten."""
        return mean.mul_(self.lr)

    def forget(self, stale: Tensor) -> None:
        """Reset the moments of the weights in ``stale`` (bool, shape ``(parameters,)``): they left or just arrived."""
        for name, start in self.moments().items():
            self.memory[name].masked_fill_(stale, start)

    def state_dict(self) -> dict[str, Tensor]:
        """The state for a checkpoint: everything that the next steps depend on."""
        return dict(self.memory)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state that ``state_dict`` returned."""
        for name in self.memory:
            self.memory[name].copy_(state[name])
