"""Loss and metrics of a model over samples, and the gradient of the loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsparse.sparsity.local_topology import flat_gradient
from fedsparse.tasks import Task
from fedsparse.telemetry.step_log import StepLog
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


class Tally:
    """Sums loss and right predictions on the device, so that the host waits for the device only once, in ``score``."""

    def __init__(self, task: Task, device: torch.device, log: StepLog | None = None) -> None:
        self.task, self.log = task, log
        self.loss, self.right = torch.zeros((), device=device), torch.zeros((), device=device, dtype=torch.int64)
        self.predictions = 0

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch, whose mean loss is given."""
        self.loss += loss.detach() * targets.numel()
        self.right += self.task.correct(outputs, targets).sum()
        self.predictions += targets.numel()

    def end_step(self) -> None:
        """Tell the step log that the batches of a step are counted."""
        if self.log:
            self.log.count(self.loss, self.predictions)

    def score(self) -> Score:
        """The mean over all batches."""
        n = max(self.predictions, 1)
        return Score(self.loss.item() / n, self.right.item() / n, self.predictions)


@torch.inference_mode()
def evaluate(model: FlatModel, fetch: Fetch, samples: int, task: Task, batch_size: int = 0) -> Score:
    """Mean loss and accuracy of ``model`` in eval mode over positions ``0 <= i < samples``.

    Args:
        batch_size: samples at a time; 0 for what :func:`evaluation_batch` says.
    """
    module, device = model.module.eval(), model.vector.device
    tally, batch_size = Tally(task, device), batch_size or evaluation_batch(fetch, samples, device)
    for start in range(0, samples, batch_size):  # split() would give one empty batch for 0 samples, with loss NaN
        inputs, targets = fetched(fetch, torch.arange(start, min(start + batch_size, samples), device=device))
        outputs = module(inputs)
        tally.add(task.loss(outputs, targets), outputs, targets)
    return tally.score()


def evaluation_batch(fetch: Fetch, samples: int, device: torch.device) -> int:
    """How many samples are evaluated at a time: 500 images, or fewer windows, because each is many predictions."""
    if not samples:
        return 1
    _, targets = fetch(torch.zeros(1, dtype=torch.int64, device=device))
    return min(500, max(1, EVALUATED // targets.numel()))


def fetched(fetch: Fetch, positions: Tensor) -> tuple[Tensor, Tensor]:
    """A batch; images are in channels-last order, because convolutions are then up to three times faster."""
    inputs, targets = fetch(positions)
    return (inputs.to(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs), targets


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
