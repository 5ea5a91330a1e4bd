"""The local loop: epochs of SGD over one client's samples, and evaluation. Knows no data set and no federation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedsparse.config import Config
from fedsparse.sparsity.local_topology import LocalTopology, flat_gradient
from fedsparse.telemetry.timers import StageTimer
from fedsparse.vector import FlatModel

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Batch indices (int64, on the device) -> inputs and labels, ready for the model."""


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy over ``samples`` predictions."""

    loss: float
    accuracy: float
    samples: int


class _Tally:
    """Sums loss and hits on the device; the host waits once, in ``score``."""

    def __init__(self, device: torch.device) -> None:
        self.loss, self.hits = torch.zeros((), device=device), torch.zeros((), device=device, dtype=torch.int64)
        self.samples = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss += loss.detach() * labels.numel()
        self.hits += (logits.argmax(-1) == labels).sum()
        self.samples += labels.numel()

    def score(self) -> Score:
        n = max(self.samples, 1)
        return Score(self.loss.item() / n, self.hits.item() / n, self.samples)


def learning_rate(config: Config, round: int) -> float:
    """The local learning rate of a round, 1 to ``config.rounds``."""
    done = (round - 1) / config.rounds
    if config.lr_schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * done)) / 2
    if config.lr_schedule == "step":
        return config.lr * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    return config.lr


def train(
    model: FlatModel,
    fetch: Fetch,
    samples: int,
    config: Config,
    *,
    round: int,
    seed: int,
    timer: StageTimer,
    topology: LocalTopology | None = None,
) -> Score:
    """Train ``model`` in place for ``config.epochs`` epochs of shuffled batches, from its present weights.

    Args:
        model: holds the global weights on entry, the local ones on return.
        fetch: the batch for given positions ``0 <= i < samples``.
        samples: how many samples the client holds.
        config: epochs, batch size, optimizer, proximal term.
        round: chooses the learning rate.
        seed: of the shuffle and of dropout.
        timer: gets the stages data, forward, backward and optimizer.
        topology: which weights exist, and how that changes while the client trains; None for all.

    Returns:
        The mean over all the batches, each measured before its own step.
    """
    module, device = model.module.train(), model.vector.device
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters,
        lr=learning_rate(config, round),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    # A gradient in float16 vanishes below 6e-8: the scaler multiplies the loss, and divides before the step.
    scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")
    proximal = config.proximal_mu if config.strategy == "fedprox" else 0.0
    anchor = model.views(model.vector.clone()) if proximal else []
    torch.manual_seed(seed)
    shuffle = torch.Generator().manual_seed(seed)
    tally = _Tally(device)
    if topology:
        topology.begin(optimizer, steps=config.epochs * math.ceil(samples / config.batch_size))
    for _ in range(config.epochs):
        order = torch.randperm(samples, generator=shuffle).to(device)
        for positions in order.split(config.batch_size):
            optimizer.zero_grad()
            for part in positions.tensor_split(min(config.accumulate, len(positions))):
                with timer("data"):
                    inputs, labels = _fetched(fetch, part)
                with timer("forward"), autocast(config, device):
                    logits = module(inputs)
                    loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten())
                with timer("backward"):
                    scaler.scale(loss * (len(part) / len(positions))).backward()
                tally.add(loss, logits, labels)
            with timer("optimizer"):
                scaler.unscale_(optimizer)
                if proximal:
                    _add_proximal_gradient(parameters, anchor, proximal)
                if topology:
                    topology.before_step()
                if config.clip_norm:
                    torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                if topology:
                    topology.after_step()
    return tally.score()


def dense_gradient(model: FlatModel, fetch: Fetch, samples: int, batch_size: int = 500) -> Tensor:
    """The gradient of the mean loss over positions ``0 <= i < samples``, of weights that do not exist too.

    In eval mode, so that neither dropout nor running statistics take part. Shape ``(layout.parameters,)``.
    """
    module, device = model.module.eval(), model.vector.device
    parameters = [p for p in module.parameters() if p.requires_grad]
    module.zero_grad()
    for positions in torch.arange(samples, device=device).split(batch_size):
        inputs, labels = _fetched(fetch, positions)
        logits = module(inputs)
        (F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum") / labels[0].numel()).backward()
    return flat_gradient(parameters) / samples


def _fetched(fetch: Fetch, positions: Tensor) -> tuple[Tensor, Tensor]:
    """A batch; images channels-last: convolutions are up to three times faster, whatever the weights' order."""
    inputs, labels = fetch(positions)
    return (inputs.to(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs), labels


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """Mixed precision as ``--amp`` asks; the weights stay float32."""
    dtype = torch.float16 if config.amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.amp != "off")


def _add_proximal_gradient(parameters: list[torch.nn.Parameter], anchor: list[Tensor], mu: float) -> None:
    """The gradient mu (w - w_global) of (mu / 2) ||w - w_global||^2 (Li et al. 2020, FedProx, eq. 2)."""
    with torch.no_grad():
        gradients = [p.grad for p in parameters]
        torch._foreach_add_(gradients, torch._foreach_sub(parameters, anchor), alpha=mu)  # type: ignore[arg-type]


@torch.inference_mode()
def evaluate(model: FlatModel, fetch: Fetch, samples: int, batch_size: int = 500) -> Score:
    """Mean loss and accuracy of ``model`` in eval mode over positions ``0 <= i < samples``."""
    module, device = model.module.eval(), model.vector.device
    tally = _Tally(device)
    for start in range(0, samples, batch_size):  # split() gives one empty batch for no samples, whose mean is NaN
        inputs, labels = _fetched(fetch, torch.arange(start, min(start + batch_size, samples), device=device))
        logits = module(inputs)
        tally.add(F.cross_entropy(logits.flatten(0, -2), labels.flatten()), logits, labels)
    return tally.score()
