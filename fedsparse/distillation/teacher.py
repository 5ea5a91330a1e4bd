"""What a network in training has a teacher for: a term of its loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from fedsparse.config import Config
from fedsparse.distillation.not_true import not_true
from fedsparse.distillation.softened import softened
from fedsparse.vector import FlatModel

Divergence = Callable[[Tensor, Tensor, Tensor, float], Tensor]
TERMS: dict[str, tuple[Divergence, float]] = {"global": (softened, 0.1), "not-true": (not_true, 1.0)}
"""By the setting ``distill``: the term, and its weight in the paper: FedGKD's gamma / 2, FedNTD's beta."""


class Lesson(NamedTuple):
    """The loss ``labels * task + weight * divergence(outputs, teacher(inputs), targets, temperature)``."""

    teacher: Callable[[Tensor], Tensor]
    divergence: Divergence
    temperature: float
    weight: float
    labels: float = 1.0

    @classmethod
    def of_the_round(cls, config: Config, model: FlatModel) -> "Lesson | None":
        """What a client learns from ``model``, which holds the global weights now; None where settings ask for none."""
        if config.distill not in TERMS:
            return None
        divergence, usual = TERMS[config.distill]
        weight = usual if config.distill_weight == "auto" else config.distill_weight
        return cls(as_it_is(model), divergence, config.distill_temperature, weight)

    def loss(self, task: Tensor, inputs: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """What is minimised, given the loss of the task."""
        term = self.divergence(outputs, self.teacher(inputs), targets, self.temperature)
        return self.labels * task + self.weight * term


def as_it_is(model: FlatModel) -> Callable[[Tensor], Tensor]:
    """The scores of the model in eval mode with the weights of now, whatever becomes of them; without gradients."""
    module, vector = model.module, model.vector.clone()
    weights = {e.name: vector[e.slice].view(e.shape) for e in model.layout.entries}

    @torch.no_grad()
    def scores(inputs: Tensor) -> Tensor:
        trains = module.training
        try:
            outputs: Tensor = functional_call(module.eval(), weights, (inputs,))
        finally:
            module.train(trains)
        return outputs

    return scores
