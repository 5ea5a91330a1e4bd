"""The local loop: optimizer steps over one client's samples, and evaluation."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from fedsparse.catalogue import OPTIMIZERS
from fedsparse.config import Config
from fedsparse.distillation.teacher import Lesson
from fedsparse.errors import PluginError
from fedsparse.plugins import blamed, call, named
from fedsparse.sparsity.local_topology import LocalTopology, flat_gradient
from fedsparse.tasks import Task
from fedsparse.telemetry.step_log import StepLog
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.adamw import decaying
from fedsparse.training.batchnorm import batches, refuse_pieces, trains_batchnorm
from fedsparse.training.loss_scale import LossScale
from fedsparse.training.moments import Memory, moments_of, restore
from fedsparse.training.objective import Objective
from fedsparse.vector import FlatModel

EVALUATED = 2048
"""Most predictions of a batch that is only evaluated: a vocabulary of 50,000 tokens makes 0.4 GB of scores of them."""

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Positions (int64, on the device) -> inputs and targets of that batch, ready for the model."""


@dataclass(frozen=True)
class Score:
    """Mean loss, and share of right predictions, over ``samples`` predictions.

    Attributes:
        skipped: steps that overflowed; None but in float16.
    """

    loss: float
    accuracy: float
    samples: int
    skipped: int | None = None

    def tagged(self, phase: str, task: Task) -> dict[str, float]:
        """Loss and metrics under telemetry's tags; ``phase`` is ``train/``, ``eval/`` or ``eval/client_``."""
        measured = {"accuracy": self.accuracy, **task.derived(self.loss)}
        tagged = {f"{phase}loss": self.loss} | {f"{phase}{name}": measured[name] for name in task.metrics}
        return tagged if self.skipped is None else tagged | {"amp/skipped_steps": float(self.skipped)}


class _Tally:
    """Sums loss and right predictions on the device, so that the host waits for the device only once, in ``score``."""

    def __init__(self, task: Task, device: torch.device, log: StepLog | None = None) -> None:
        self.task, self.log = task, log
        self.loss, self.right = torch.zeros((), device=device), torch.zeros((), device=device, dtype=torch.int64)
        self.predictions = 0

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        self.loss += loss.detach() * targets.numel()
        self.right += self.task.correct(outputs, targets).sum()
        self.predictions += targets.numel()

    def end_step(self) -> None:
        if self.log:
            self.log.count(self.loss, self.predictions)

    def score(self) -> Score:
        n = max(self.predictions, 1)
        return Score(self.loss.item() / n, self.right.item() / n, self.predictions)


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


def train(
    model: FlatModel,
    fetch: Fetch,
    samples: int,
    config: Config,
    task: Task,
    *,
    round: int,
    seed: int,
    timer: StageTimer,
    topology: LocalTopology | None = None,
    log: StepLog | None = None,
    memory: Memory | None = None,
    lesson: Lesson | None = None,
) -> Score:
    """Train ``model`` in place on shuffled batches, from its present weights.

    Args:
        model: holds the global weights on entry, the local ones on return.
        fetch: the batch for given positions ``0 <= i < samples``.
        samples: how many samples the client holds.
        config: epochs or local steps, batch size, optimizer, proximal term.
        task: the loss, and which predictions are right.
        round: decides the learning rate.
        seed: for the shuffle and for dropout.
        timer: measures the stages data, forward, backward and optimizer.
        topology: says which weights exist, and may change while the client trains; None when all weights exist.
        log: counts the optimizer steps; None for no step log.
        memory: what the optimizer remembered at the end of an earlier training, and remembers at the end of this one;
            None to start anew.
        lesson: what to learn from a teacher; None for what the settings say of the global model.

    Returns:
        The mean over all batches, each measured before its optimizer step.

    Raises:
        ConfigError: batches in pieces, and the model has BatchNorm.
    """
    module, device = model.module.train(), model.vector.device
    refuse_pieces(config, module)
    joins = trains_batchnorm(module)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = local_optimizer(config, module, round)
    restore(optimizer, model, memory or {}, topology.topology.mask if topology else None)
    scale = LossScale(device, enabled=config.amp == "fp16")
    anchor = model.views(model.vector.clone()) if config.proximal else []
    objective = Objective(model, config, task, lesson)
    torch.manual_seed(seed)
    tally, steps = _Tally(task, device, log), step_count(config, samples, joins)
    if topology:
        topology.begin(optimizer, steps)
    for step, positions in enumerate(islice(_shuffled(samples, config.batch_size, joins, seed, device), steps)):
        optimizer.zero_grad()
        for part in positions.tensor_split(min(config.accumulate, len(positions))):
            with timer("data"):
                inputs, targets = fetched(fetch, part)
            with timer("forward"), autocast(config, device):
                losses = objective(inputs, targets)
            with timer("backward"):
                scale.backward(losses.whole * (len(part) / len(positions)))
            tally.add(losses.task, losses.outputs, targets)
        with timer("optimizer"):
            scale.unscale(optimizer)
            if config.proximal:
                _add_proximal_gradient(parameters, anchor, config.proximal)
            if topology:
                topology.before_step()
            if config.clip_norm:
                nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            if config.lr_schedule_by == "step":
                _set_rate(optimizer, learning_rate(config, round, step, steps))
            scale.step(optimizer)
            if topology:
                topology.after_step()
        tally.end_step()
    if memory is not None:
        memory |= moments_of(optimizer, model)
    return replace(tally.score(), skipped=int(scale.skipped)) if scale.enabled else tally.score()


def step_count(config: Config, samples: int, joins: bool = False) -> int:
    """The optimizer steps of one round of a client with ``samples`` samples; ``joins`` as for ``batches``."""
    return config.local_steps or config.epochs * len(batches(torch.arange(samples), config.batch_size, joins))


def _shuffled(samples: int, size: int, joins: bool, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of positions without end: one epoch after the other, each in an order of its own."""
    shuffle = torch.Generator().manual_seed(seed)
    while True:
        yield from batches(torch.randperm(samples, generator=shuffle).to(device), size, joins)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def evaluation_batch(fetch: Fetch, samples: int, device: torch.device) -> int:
    """How many samples are evaluated at a time: 500 images, or fewer windows, because each is many predictions."""
    if not samples:
        return 1
    _, targets = fetch(torch.zeros(1, dtype=torch.int64, device=device))
    return min(500, max(1, EVALUATED // targets.numel()))


def dense_gradient(model: FlatModel, fetch: Fetch, samples: int, task: Task, batch_size: int = 0) -> Tensor:
    """The gradient of the mean loss over positions ``0 <= i < samples``: shape ``(layout.parameters,)``.

    The gradient includes weights that do not exist. The model is in eval mode, so that dropout is off and BatchNorm's
    running statistics stay as they are. ``batch_size`` is as for :func:`evaluate`.
    """
    module, device = model.module.eval(), model.vector.device
    parameters = [p for p in module.parameters() if p.requires_grad]
    module.zero_grad()
    batch_size = batch_size or evaluation_batch(fetch, samples, device)
    for positions in torch.arange(samples, device=device).split(batch_size):
        inputs, targets = fetched(fetch, positions)
        (task.loss(module(inputs), targets, "sum") / targets[0].numel()).backward()
    return flat_gradient(parameters) / samples


def fetched(fetch: Fetch, positions: Tensor) -> tuple[Tensor, Tensor]:
    """A batch; images are in channels-last order, because convolutions are then up to three times faster."""
    inputs, targets = fetch(positions)
    return (inputs.to(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs), targets


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
def evaluate(model: FlatModel, fetch: Fetch, samples: int, task: Task, batch_size: int = 0) -> Score:
    """Mean loss and accuracy of ``model`` in eval mode over positions ``0 <= i < samples``.

    Args:
        batch_size: samples at a time; 0 for what :func:`evaluation_batch` says.
    """
    module, device = model.module.eval(), model.vector.device
    tally, batch_size = _Tally(task, device), batch_size or evaluation_batch(fetch, samples, device)
    for start in range(0, samples, batch_size):  # split() would give one empty batch for 0 samples, with loss NaN
        inputs, targets = fetched(fetch, torch.arange(start, min(start + batch_size, samples), device=device))
        outputs = module(inputs)
        tally.add(task.loss(outputs, targets), outputs, targets)
    return tally.score()
