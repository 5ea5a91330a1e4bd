"""One optimizer step of several clients, whose weights are stacked: see ``stacked.py``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedsparse.config import Config
from fedsparse.training.adamw import BETA1, EPSILON


class StackedStep(ABC):
    """An optimizer's step on the first rows of stacked weights, each client's gradient clipped by its own norm."""

    def __init__(
        self,
        weights: list[Tensor],
        anchor: list[Tensor],
        masks: list[Tensor],
        config: Config,
        lr: float,
        decays: Sequence[bool],
    ) -> None:
        self.weights, self.anchor, self.masks, self.config, self.lr = weights, anchor, masks, config, lr
        self.decays = decays

    def __call__(self, gradients: list[Tensor]) -> None:
        active, config = len(gradients[0]), self.config
        weights = [w[:active] for w in self.weights]
        if config.proximal:
            torch._foreach_add_(gradients, torch._foreach_sub(weights, self.anchor), alpha=config.proximal)
        if self.masks:  # before clipping, momentum and decay, as in LocalTopology
            torch._foreach_mul_(gradients, self.masks)
        if config.clip_norm:
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
            factor = (config.clip_norm / (norms + 1e-6)).clamp(max=1)
            gradients = [g * factor.view(-1, *[1] * (g.dim() - 1)) for g in gradients]
        self.move(weights, gradients, active)

    @abstractmethod
    def move(self, weights: list[Tensor], gradients: list[Tensor], active: int) -> None:
        """Change ``weights``, those of the first ``active`` clients, in place."""


class StackedSGD(StackedStep):
    """torch.optim.SGD."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.momentum = [torch.zeros_like(w) for w in self.weights] if self.config.momentum else []

    def move(self, weights: list[Tensor], gradients: list[Tensor], active: int) -> None:
        if self.config.weight_decay:
            torch._foreach_add_(gradients, weights, alpha=self.config.weight_decay)
        if self.momentum:
            momentum = [m[:active] for m in self.momentum]
            torch._foreach_mul_(momentum, self.config.momentum)
            torch._foreach_add_(momentum, gradients)
            gradients = momentum
        torch._foreach_add_(weights, gradients, alpha=-self.lr)


class StackedAdamW(StackedStep):
    """torch.optim.AdamW, as ``adamw.py`` makes it. All clients that still train have done as many steps."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.first, self.second = ([torch.zeros_like(w) for w in self.weights] for _ in range(2))
        self.steps = 0

    def move(self, weights: list[Tensor], gradients: list[Tensor], active: int) -> None:
        self.steps += 1
        first, second = ([m[:active] for m in moments] for moments in (self.first, self.second))
        beta2 = self.config.adam_beta2
        decayed = [w for w, decays in zip(weights, self.decays, strict=True) if decays]
        torch._foreach_mul_(decayed, 1 - self.lr * self.config.weight_decay)
        torch._foreach_lerp_(first, gradients, 1 - BETA1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        spread = torch._foreach_sqrt(torch._foreach_div(second, 1 - beta2**self.steps))
        torch._foreach_add_(spread, EPSILON)
        torch._foreach_addcdiv_(weights, first, spread, -self.lr / (1 - BETA1**self.steps))
