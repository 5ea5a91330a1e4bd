"""What a network with exits gives for its computation, if samples leave at the first classifier that is sure enough."""

import logging
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from fedsparse.models.chain import multiply_adds
from fedsparse.models.exits import Exits
from fedsparse.models.gpt2 import Block
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
    Of text, each position leaves for itself, and the multiply-adds are of a position.
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
    sample, target = fetched(fetch, torch.zeros(1, dtype=torch.int64, device=device))
    prices, later = (
        cost.to(device).double() / target.numel() for cost in (costs(module, sample), keys_and_values(module, sample))
    )
    size = max(1, evaluation_batch(fetch, samples, device) // len(module.stages))
    for positions in torch.arange(samples, device=device).split(size):
        inputs, targets = fetched(fetch, positions)
        scores = torch.stack(module.every(inputs, len(module.stages)))
        for threshold in THRESHOLDS:
            given = copying(module, inputs, threshold) if targets[0].numel() > 1 else scores
            at = leaving(given, threshold)
            chosen = given.take_along_dim(at[None, ..., None], 0)[0]
            by_threshold[threshold].add(chosen, targets, (prices + later)[at], task)
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


def copying(module: Exits, x: Tensor, threshold: float) -> Tensor:
    """The scores of every classifier for text, if a position that leaves hands its state on as it is.

    The layers behind take their keys and values from this state, where later positions look at it (CALM, Schuster et
    al. 2022, "Confident Adaptive Language Modeling"). What a classifier gives for a position that has left is of no
    use.

    Returns:
        float, shape ``(classifiers, *x.shape, classes)``.
    """
    scores, gone = list[Tensor](), torch.zeros(*x.shape, 1, dtype=torch.bool, device=x.device)
    stage: Any
    for stage in module.stages:
        for layer in stage.layers:
            new = layer(x)
            x = new.where(~gone, x) if new.shape == x.shape else new  # another shape: the first and the last layer
        scores.append(x if stage.classifier is None else stage.classifier(x))
        gone = gone | (scores[-1].softmax(-1).amax(-1, keepdim=True) > threshold)
    return torch.stack(scores)


@torch.no_grad()
def keys_and_values(module: Exits, x: Tensor) -> Tensor:
    """What a sample that leaves at a classifier costs behind it: int64 ``(classifiers,)``.

    These are the multiply-adds of the keys and values of transformers' blocks, two thirds of what makes queries, keys
    and values together.
    """
    found = list[int]()
    stage: Any
    for stage in module.stages:
        found.append(0)
        for layer in stage.layers:
            if isinstance(layer, Block):
                found[-1] += 2 * multiply_adds(layer.attn.c_attn, x)[1] // 3
            x = layer(x)
    after = torch.tensor(found)
    return after.sum() - after.cumsum(0)


@torch.no_grad()
def costs(module: Exits, x: Tensor) -> Tensor:
    """The multiply-adds up to each classifier, those before it included, of one sample: int64 ``(classifiers,)``."""
    found = []
    for stage in module.stages:
        x, cost = multiply_adds(stage, x)
        classifier: Any = stage.classifier
        found.append(cost + (0 if classifier is None else multiply_adds(classifier, x)[1]))
    return torch.tensor(found).cumsum(0)
