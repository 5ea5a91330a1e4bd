"""FedAvg's step (McMahan et al. 2017, algorithm 1), and what every server optimizer is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedsparse.config import Config


class ServerOptimizer:
    """The step that the server takes for the cohort's mean update: here ``server_lr`` times that update.

    Another optimizer overrides ``step``, and ``moments`` if it remembers anything of each weight. One of the user's own
    is named by ``--strategy``, and is constructed with the same two arguments.

    Args:
        config: the settings.
        parameters: how many weights there are.

    Attributes:
        memory: the moments by name, float32, shape ``(parameters,)`` each.
    """

    usual_lr = 1.0
    """What ``server-lr = auto`` means."""

    def __init__(self, config: Config, parameters: int) -> None:
        self.config = config
        self.lr = self.usual_lr if config.server_lr == "auto" else config.server_lr
        self.memory = {name: torch.full((parameters,), start) for name, start in self.moments().items()}

    def moments(self) -> dict[str, float]:
        """The name and the first value of each moment."""
        return {}

    def step(self, mean: Tensor) -> Tensor:
        """What is added to the weights: float32, shape ``(parameters,)``, as ``mean``, which it may overwrite."""
        return mean.mul_(self.lr)

    def forget(self, stale: Tensor) -> None:
        """Start anew for some weights, such as those that a topology has just added: bool, shape ``(parameters,)``."""
        for name, start in self.moments().items():
            self.memory[name].masked_fill_(stale, start)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next steps depend on, for a checkpoint."""
        return dict(self.memory)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` gave."""
        for name in self.memory:
            self.memory[name].copy_(state[name])
