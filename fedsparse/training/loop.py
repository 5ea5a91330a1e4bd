"""The local loop: optimizer steps over one client's samples."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from fedsparse.config import Config
from fedsparse.distillation.teacher import Lesson
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.tasks import Task
from fedsparse.telemetry.step_log import StepLog
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.batchnorm import batches, refuse_pieces, trains_batchnorm
from fedsparse.training.evaluation import Fetch, Score, Tally, fetched
from fedsparse.training.local_step import LocalStep
from fedsparse.training.moments import Memory, moments_of
from fedsparse.training.objective import Objective
from fedsparse.vector import FlatModel


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
    steps = step_count(config, samples, joins)
    step = LocalStep(model, config, round, steps, topology, memory or {})
    objective = Objective(model, config, task, lesson, round)
    tally = Tally(task, device, log)
    torch.manual_seed(seed)
    for positions in islice(_shuffled(samples, config.batch_size, joins, seed, device), steps):
        step.optimizer.zero_grad()
        for part in positions.tensor_split(min(config.accumulate, len(positions))):
            with timer("data"):
                inputs, targets = fetched(fetch, part)
            with timer("forward"), autocast(config, device):
                losses = objective(inputs, targets)
            with timer("backward"):
                step.backward(losses.whole * (len(part) / len(positions)))
            tally.add(losses.task, losses.outputs, targets)
        with timer("optimizer"):
            step.take()
        tally.end_step()
    if memory is not None:
        memory |= moments_of(step.optimizer, model)
    return replace(tally.score(), skipped=step.skipped)


def step_count(config: Config, samples: int, joins: bool = False) -> int:
    """The optimizer steps of one round of a client with ``samples`` samples; ``joins`` as for ``batches``."""
    return config.local_steps or config.epochs * len(batches(torch.arange(samples), config.batch_size, joins))


def _shuffled(samples: int, size: int, joins: bool, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of positions without end: one epoch after the other, each in an order of its own."""
    shuffle = torch.Generator().manual_seed(seed)
    while True:
        yield from batches(torch.randperm(samples, generator=shuffle).to(device), size, joins)


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """Mixed precision as ``--amp`` asks; the weights stay float32."""
    dtype = torch.float16 if config.amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.amp != "off")
