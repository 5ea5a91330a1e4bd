"""What a network with exits gives for its computation, if samples leave at the first classifier that is sure enough."""

import logging
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from fedsparse.models.chain import multiply_adds
from fedsparse.models.exits import Exits
from fedsparse.tasks import Task
from fedsparse.training.evaluation import Fetch, Score, evaluation_batch, fetched
from fedsparse.vector import FlatModel

log = logging.getLogger("fedsparse")

THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
BY_THRESHOLD, BY_CLASSIFIER = "early-exits", "classifiers"
"""The names in a run's result."""

Point = dict[str, float | str]
"""The loss, the metrics of the task, and the ``multiply_adds`` of a sample; all on average."""


def early_exits(model: FlatModel, fetch: Fetch, samples: int, task: Task) -> dict[str, list[Point]]:
    """What a run's result says of a network with exits, with tables of it in the log; empty for another network.

    The points are over positions ``0 <= i < samples``. Of ``early-exits``, each has a ``threshold``: a sample leaves
    where the largest probability is above it. At 0 all leave at the first classifier, and at 1 none leaves before the
    last. Of ``classifiers``, each has a ``classifier``, from 1; the last one is ``all``, the mean of all scores (the
    ensemble of Kim et al. 2023, "DepthFL", table 4). The multiply-adds are those of matrix products and convolutions.
    """
    if not isinstance(model.module, Exits):
        return {}
    found = _measured(model.module.eval(), fetch, samples, task, model.vector.device)
    for first, listed in zip(("threshold", "classifier"), found.values(), strict=True):
        titles = (first, *task.metrics, "multiply_adds")
        rows = [[f"{p[t]:{task.metrics.get(t, ',.6g')}}" if t != first else str(p[t]) for t in titles] for p in listed]
        log.info("early exits\n%s", "\n".join("  ".join(f"{text:>13}" for text in row) for row in [titles, *rows]))
    return found


@torch.no_grad()
def _measured(
    module: Exits, fetch: Fetch, samples: int, task: Task, device: torch.device
) -> dict[str, list[Point]]:  # fmt: skip
    by_threshold, by_classifier = defaultdict[float, _Sum](_Sum), defaultdict[str, _Sum](_Sum)
    names = [*map(str, range(1, len(module.stages) + 1)), "all"]
    prices = costs(module, fetched(fetch, torch.zeros(1, dtype=torch.int64, device=device))[0]).to(device)
    for positions in torch.arange(samples, device=device).split(evaluation_batch(fetch, samples, device)):
        inputs, targets = fetched(fetch, positions)
        scores = torch.stack(module.every(inputs, len(module.stages)))
        for threshold in THRESHOLDS:
            at = leaving(scores, threshold)
            chosen = scores.take_along_dim(at[None, ..., None], 0)[0]
            by_threshold[threshold].add(chosen, targets, prices[at], task)
        for name, one, price in zip(names, [*scores, scores.mean(0)], [*prices, prices[-1]], strict=True):
            by_classifier[name].add(one, targets, price.expand(targets.shape), task)
    return {
        BY_THRESHOLD: [{"threshold": threshold, **found.point(task)} for threshold, found in by_threshold.items()],
        BY_CLASSIFIER: [{"classifier": name, **found.point(task)} for name, found in by_classifier.items()],
    }


class _Sum:
    """Of predictions: how many they are, their losses, how many are right, and their multiply-adds."""

    def __init__(self) -> None:
        self.number, self.loss, self.right, self.cost = 0, 0.0, 0, 0.0

    def add(self, scores: Tensor, targets: Tensor, costs: Tensor, task: Task) -> None:
        self.number += targets.numel()
        self.loss += task.loss(scores, targets, "sum").item()
        self.right += int(task.correct(scores, targets).sum())
        self.cost += costs.double().sum().item()

    def point(self, task: Task) -> Point:
        score = Score(self.loss / self.number, self.right / self.number, self.number)
        measured = {**score.tagged("", task), "multiply_adds": self.cost / self.number}
        return {name: value for name, value in measured.items() if math.isfinite(value)}


def leaving(scores: Tensor, threshold: float) -> Tensor:
    """The classifier, from 0, at which each sample leaves: int64, shape ``scores.shape[1:-1]``.

    Args:
        scores: of every classifier, float, shape ``(classifiers, ..., classes)``.
    """
    is_sure = scores.softmax(-1).amax(-1) > threshold
    is_sure[-1] = True
    return is_sure.int().argmax(0)  # the first


@torch.no_grad()
def costs(module: Exits, x: Tensor) -> Tensor:
    """The multiply-adds up to each classifier, those before it included, of one sample: int64 ``(classifiers,)``."""
    found = []
    for stage in module.stages:
        x, cost = multiply_adds(stage, x)
        classifier: Any = stage.classifier
        found.append(cost + (0 if classifier is None else multiply_adds(classifier, x)[1]))
    return torch.tensor(found).cumsum(0)
