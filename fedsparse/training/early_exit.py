"""Accuracy against computation, if a sample leaves a network with exits at the first classifier that is sure enough."""

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedsparse.models.chain import multiply_adds
from fedsparse.models.exits import Exits
from fedsparse.tasks import Task
from fedsparse.training.loop import Fetch, fetched
from fedsparse.vector import FlatModel

log = logging.getLogger("fedsparse")

THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
BATCH = 256


class Point(NamedTuple):
    """What a threshold gives: the accuracy, and the multiply-adds of a sample, both on average."""

    threshold: float
    accuracy: float
    multiply_adds: float


def early_exits(model: FlatModel, fetch: Fetch, samples: int, task: Task) -> dict[str, list[dict[str, float]]]:
    """What a run's result says of a network with exits, with a table of it in the log; empty for another network.

    The points are over positions ``0 <= i < samples``. A sample leaves where the largest probability is above the
    threshold. At 0 all leave at the first classifier, and at 1 none leaves before the last. The multiply-adds are those
    of matrix products and convolutions.
    """
    if not isinstance(model.module, Exits):
        return {}
    found = _measured(model.module.eval(), fetch, samples, task, model.vector.device)
    lines = [f"{'sure above':>10}  {'accuracy':>8}  {'multiply-adds':>13}"]
    lines += [f"{p.threshold:>10g}  {p.accuracy:>8.2%}  {p.multiply_adds:>13,.0f}" for p in found]
    log.info("early exits\n%s", "\n".join(lines))
    return {"early-exits": [p._asdict() for p in found]}


@torch.no_grad()
def _measured(module: Exits, fetch: Fetch, samples: int, task: Task, device: torch.device) -> list[Point]:
    sure, right = [], []
    for positions in torch.arange(samples, device=device).split(BATCH):
        inputs, targets = fetched(fetch, positions)
        scores = torch.stack(module.every(inputs, len(module.stages)))
        sure.append(scores.softmax(2).amax(2))
        right.append(task.correct(scores, targets.expand(scores.shape[:2])))
    return points(torch.cat(sure, 1), torch.cat(right, 1), costs(module, inputs[:1]))


def points(sure: Tensor, right: Tensor, costs: Tensor) -> list[Point]:
    """The points of measured classifiers.

    Args:
        sure, right: the largest probability, and whether the prediction is right: shape ``(classifiers, samples)``.
        costs: multiply-adds up to each classifier, all before it included: shape ``(classifiers,)``.
    """
    found = []
    for threshold in THRESHOLDS:
        leaves = sure > threshold
        leaves[-1] = True
        at = leaves.int().argmax(0)  # the first
        accuracy = right.gather(0, at.unsqueeze(0)).double().mean()
        found.append(Point(threshold, accuracy.item(), costs.to(at.device)[at].double().mean().item()))
    return found


@torch.no_grad()
def costs(module: Exits, x: Tensor) -> Tensor:
    """The multiply-adds up to each classifier, those before it included, of one sample: int64 ``(classifiers,)``."""
    found = []
    for stage in module.stages:
        x, cost = multiply_adds(stage, x)
        classifier: Any = stage.classifier
        found.append(cost + (0 if classifier is None else multiply_adds(classifier, x)[1]))
    return torch.tensor(found).cumsum(0)
