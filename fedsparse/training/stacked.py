"""The local loop of several clients at once: their weights are stacked, ``(clients, ...)``, and a step is one call.

With one small model, a processor mostly waits for the next call; ten small models in one call keep it busy. Each client
sees the same batches as when it trains alone (same seed, same shuffle), and ends with the same weights within float
tolerance. Clients are sorted by their number of steps, so that the clients that still train are always the first rows:
a client with fewer samples is not padded to a larger one, and only the last batch of an epoch is padded.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedsparse.config import Config
from fedsparse.distillation.teacher import TERMS
from fedsparse.sparsity import TopologyMethod
from fedsparse.tasks import Task
from fedsparse.telemetry.step_log import StepLog
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.adamw import decaying
from fedsparse.training.batchnorm import trains_batchnorm
from fedsparse.training.evaluation import Score
from fedsparse.training.local_step import learning_rate
from fedsparse.training.stacked_step import StackedAdamW, StackedSGD
from fedsparse.vector import FlatModel

log = logging.getLogger("fedsparse")

PADDING = -1
TOGETHER = 16
"""Clients in a group. Groups may change the last bits of a result, so they depend on the cohort, never on workers."""
SMALL = 2_000_000
"""Weights up to which ``auto`` trains clients together on a GPU, because a larger model keeps a GPU busy alone."""


def group_size(config: Config, model: FlatModel, method: TopologyMethod) -> int:
    """How many clients train together; 1 when they train one by one.

    ``auto`` is a fixed rule instead of a measurement, because one seed must give the same bits in every run. On the CPU
    ``auto`` means one by one, because every engine must give the same bits there, and on Flower's runtime each client
    trains alone. With ``on``, linear layers on the CPU take a quarter of the time for 25 thousand weights and batches
    of 8, and three quarters for 200 thousand weights and batches of 32; convolutions take half as long again.
    """
    small_on_gpu = model.vector.is_cuda and model.layout.parameters <= SMALL
    if config.cohort_batching == "off" or (config.cohort_batching == "auto" and not small_on_gpu):
        return 1
    reason = why_alone(config, model, method)
    if reason:
        log.warning("cohort-batching: clients train one by one, for these settings need it: %s", reason)
    return 1 if reason else TOGETHER


def why_alone(config: Config, model: FlatModel, method: TopologyMethod) -> str:
    """The names of the settings that need one client at a time; empty when none does."""
    dropout = (m for m in model.module.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0)
    reasons = {
        "running statistics": model.layout.size > model.layout.parameters,
        "BatchNorm": trains_batchnorm(model.module.train()),
        "dropout": any(dropout),
        "method": method.clients_choose or method.changes_steps,
        "augment": config.augment,
        "amp": config.amp != "off",
        "accumulate": config.accumulate > 1,
        "optimizer": config.optimizer not in ("sgd", "adamw"),
        "keep-moments": config.keep_moments,
        "lr-schedule-by": config.lr_schedule_by == "step",
        "LSTM": any(isinstance(m, nn.RNNBase) for m in model.module.modules()),
        "compile": config.compile,
        "recompute": config.recompute,
        "exits": config.exits > 0,
        "distill": config.distill in TERMS,
        "client-models": bool(config.client_models),
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def train_cohort(
    model: FlatModel,
    fetch: Callable[[Tensor], tuple[Tensor, Tensor]],
    samples: Sequence[int],
    config: Config,
    task: Task,
    *,
    round: int,
    seeds: Sequence[int],
    timer: StageTimer,
    mask: Tensor | None = None,
    logs: Sequence[StepLog] = (),
) -> tuple[Tensor, list[Score]]:
    """Train clients as ``loop.train`` does, all of them from the present weights of ``model``.

    Args:
        model: holds the global weights; unchanged on return.
        fetch: positions, int64 ``(c, b)`` of the first ``c`` clients -> inputs and labels ``(c, b, ...)``.
        samples: how many samples each client holds, in descending order.
        config, task: as for ``train``, but ``why_alone`` must be empty.
        round: decides the learning rate.
        seeds: for each client's shuffle.
        timer: measures the stages data, forward, backward and optimizer of all clients together.
        mask: the weights that exist, bool ``(layout.parameters,)``; the model's other weights are 0. None for all.
        logs: of the clients, to count their steps; empty for no step log.

    Returns:
        The local weights, float32 ``(clients, layout.size)``, and each client's score.
    """
    clients, device = len(samples), model.vector.device
    anchor = model.views(model.vector.clone())
    weights = [w.expand(clients, *w.shape).clone() for w in anchor]
    masks = [] if mask is None else [m.to(torch.float32) for m in model.views(mask)]
    optimizer = StackedAdamW if config.optimizer == "adamw" else StackedSGD
    step = optimizer(weights, anchor, masks, config, learning_rate(config, round), decaying(model.module))
    forward = _stacked_forward(model.module.train())
    tally = _Tallies(task, clients, device, logs)
    for positions in _schedule(samples, config, seeds, device):
        active = len(positions)
        with timer("data"):
            real = positions != PADDING
            inputs, targets = fetch(positions.clamp(min=0))
        with timer("forward"), sdpa_kernel(SDPBackend.MATH):  # the one kind of attention that vmap batches
            leaves = [w[:active].detach().requires_grad_() for w in weights]
            outputs = forward(leaves, inputs)
            loss = task.loss(outputs, targets, "none")
            loss = loss.view(*real.shape, -1).mean(2) * real  # shape (c, b)
        with timer("backward"):
            gradients = torch.autograd.grad((loss.sum(1) / real.sum(1)).sum(), leaves)
        with timer("optimizer"):
            step(list(gradients))
        tally.add(loss.detach(), real, outputs, targets)
    return torch.cat([w.flatten(1) for w in weights], 1), tally.scores()


class _Tallies:
    """Sums the clients' losses and right predictions on the device, as ``evaluation.Tally`` does for one client."""

    def __init__(self, task: Task, clients: int, device: torch.device, logs: Sequence[StepLog]) -> None:
        self.task, self.logs = task, logs
        self.loss, self.right = torch.zeros(clients, device=device), torch.zeros(clients, device=device)
        self.samples = torch.zeros(clients, dtype=torch.int64, device=device)

    def add(self, loss: Tensor, real: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count a step of the first clients.

        Args:
            loss: of each sample, shape ``(c, b)``; 0 for padding.
            real: which samples are none, bool ``(c, b)``.
        """
        active, each = len(real), targets[0, 0].numel()  # predictions of a sample
        right = self.task.correct(outputs, targets).view(*real.shape, -1).float().mean(2) * real
        self.loss[:active] += loss.sum(1)
        self.right[:active] += right.sum(1)
        self.samples[:active] += real.sum(1)
        for row, log in enumerate(self.logs[:active]):
            log.count(self.loss[row] * each, self.samples[row] * each)

    def scores(self) -> list[Score]:
        """Each client's means."""
        sums = zip(self.loss.tolist(), self.right.tolist(), self.samples.tolist(), strict=True)
        return [Score(loss / n, right / n, n) for loss, right, n in sums]


def _schedule(samples: Sequence[int], config: Config, seeds: Sequence[int], device: torch.device) -> Iterator[Tensor]:
    """The positions of every step: int64 ``(c, b)`` for the ``c`` clients that still train, some ``PADDING``."""
    size = min(config.batch_size, samples[0])
    per_epoch = [-(-n // size) for n in samples]
    steps = [config.local_steps or config.epochs * batches for batches in per_epoch]
    plan = torch.full((steps[0], len(samples), size), PADDING)
    for client, (n, seed) in enumerate(zip(samples, seeds, strict=True)):
        shuffle = torch.Generator().manual_seed(seed)
        epochs = [
            F.pad(torch.randperm(n, generator=shuffle), (0, -n % size), value=PADDING)
            for _ in range(-(-steps[client] // per_epoch[client]))
        ]
        plan[: steps[client], client] = torch.cat(epochs).view(-1, size)[: steps[client]]
    widths = (plan != PADDING).sum(2).amax(1).tolist()
    for step, (positions, width) in enumerate(zip(plan.to(device), widths, strict=True)):
        yield positions[: sum(s > step for s in steps), :width]


def _stacked_forward(module: nn.Module) -> Callable[[list[Tensor], Tensor], Tensor]:
    """``(stacked weights, inputs (c, b, ...)) -> outputs (c, b, ...)``: each client's model on its own inputs."""
    names = [name for name, p in module.named_parameters() if p.requires_grad]

    def one(weights: list[Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(module, dict(zip(names, weights, strict=True)), (inputs,))
        return outputs

    return vmap(one)
