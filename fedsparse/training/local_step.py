"""One optimizer step of a client: from the gradients to new weights. The learning rate and the local optimizer."""

import math

import torch
from torch import Tensor, nn

from fedsparse.catalogue import OPTIMIZERS
from fedsparse.config import Config
from fedsparse.errors import PluginError
from fedsparse.plugins import blamed, call, named
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.training.adamw import decaying
from fedsparse.training.loss_scale import LossScale
from fedsparse.training.moments import Memory, restore
from fedsparse.vector import FlatModel


class LocalStep:
    """The optimizer of one client's training in a round, with what settings and topology make of the gradients.

    Args:
        model: holds the global weights.
        round: decides the learning rate.
        steps: how many there will be.
        topology: says which weights exist, and may change; None when all weights exist.
        memory: what the optimizer remembered at the end of an earlier training; empty to start anew.

    Attributes:
        optimizer: torch's, or the user's own.
    """

    def __init__(
        self, model: FlatModel, config: Config, round: int, steps: int, topology: LocalTopology | None, memory: Memory
    ) -> None:
        self.config, self.round, self.steps, self.topology = config, round, steps, topology
        self.parameters = [p for p in model.module.parameters() if p.requires_grad]
        self.optimizer = local_optimizer(config, model.module, round)
        restore(self.optimizer, model, memory, topology.topology.mask if topology else None)
        self._scale = LossScale(model.vector.device, enabled=config.amp == "fp16")
        self._anchor = model.views(model.vector.clone()) if config.proximal else []
        self._taken = 0
        if topology:
            topology.begin(self.optimizer, steps)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a batch, or of a piece of it."""
        self._scale.backward(loss)

    def take(self) -> None:
        """Change the weights by the gradients."""
        config, topology = self.config, self.topology
        self._scale.unscale(self.optimizer)
        if config.proximal:
            _add_proximal_gradient(self.parameters, self._anchor, config.proximal)
        if topology:
            topology.before_step()
        if config.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        if config.lr_schedule_by == "step":
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config, self.round, self._taken, self.steps)
        self._scale.step(self.optimizer)
        if topology:
            topology.after_step()
        self._taken += 1

    @property
    def skipped(self) -> int | None:
        """Steps that overflowed; None but in float16."""
        return int(self._scale.skipped) if self._scale.enabled else None


def learning_rate(config: Config, round: int, step: int = 0, steps: int = 1) -> float:
    """The local learning rate of a round, 1 to ``config.rounds``.

    Args:
        step, steps: the local step from 0, and how many steps the round has; used where the rate goes by steps.
    """
    if config.lr_schedule_by == "round":
        step, steps = 0, 1
    passed = round - 1 + step / steps
    lr, done = config.lr, passed / config.rounds
    if config.lowrank_switches and round > config.lowrank_switch_round:
        lr *= config.lowrank_lr_factor
    if config.lr_warmup_rounds:  # in the middle of the round or step
        lr *= min(1.0, (passed + 0.5 / steps) / config.lr_warmup_rounds)
    if config.lr_schedule == "cosine":
        return lr * (1 + math.cos(math.pi * done)) / 2
    if config.lr_schedule == "step":
        return lr * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    if config.lr_schedule == "exponential":
        return lr * config.lr_decay**passed
    return lr


def local_optimizer(config: Config, module: nn.Module, round: int) -> torch.optim.Optimizer:
    """The optimizer of one client's training in a round.

    A user's own class or function is called with the list of trainable parameters, and with ``lr``, ``momentum``,
    ``beta2``, ``weight_decay``, ``decays`` (see ``adamw``) and ``fused`` if its signature has them. It must return a
    ``torch.optim.Optimizer``.

    Raises:
        PluginError: the user's own fails or returns another type.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    settings = {
        "lr": learning_rate(config, round),
        "momentum": config.momentum,
        "beta2": config.adam_beta2,
        "weight_decay": config.weight_decay,
        "decays": decaying(module),
        "fused": parameters[0].device.type in ("cpu", "cuda"),
    }
    with blamed("optimizer", config.optimizer):
        optimizer = call(named(OPTIMIZERS, config.optimizer), parameters, **settings)
        if not isinstance(optimizer, torch.optim.Optimizer):
            name, got = config.optimizer, type(optimizer).__name__
            raise PluginError(f"{name}: should give a torch.optim.Optimizer, not {got}")
    return optimizer


def _add_proximal_gradient(parameters: list[torch.nn.Parameter], anchor: list[Tensor], mu: float) -> None:
    """The gradient mu (w - w_global) of (mu / 2) ||w - w_global||^2 (Li et al. 2020, FedProx, eq. 2)."""
    with torch.no_grad():
        gradients = [p.grad for p in parameters]
        torch._foreach_add_(gradients, torch._foreach_sub(parameters, anchor), alpha=mu)  # type: ignore[arg-type]
