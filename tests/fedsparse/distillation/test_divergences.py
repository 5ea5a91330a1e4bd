"""The terms of a teacher, against their papers' formulas, computed number by number."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.config import Config
from fedsparse.distillation.not_true import not_true
from fedsparse.distillation.softened import softened
from fedsparse.distillation.teacher import Lesson
from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.loop import train
from fedsparse.vector import FlatModel

CLASSES, SAMPLES = 4, 6
random = torch.Generator().manual_seed(5)
OUTPUTS, TAUGHT = (3 * torch.randn(SAMPLES, CLASSES, generator=random, dtype=torch.float64) for _ in range(2))
TARGETS = torch.arange(SAMPLES) % CLASSES


def shares(scores: list[float], temperature: float) -> list[float]:
    powers = [math.exp(score / temperature) for score in scores]
    return [power / sum(powers) for power in powers]


def by_hand(outputs: Tensor, temperature: float, leaves_out_the_true_class: bool) -> float:
    """T^2 times the mean of sum_c p_c log(p_c / q_c), over all classes or over the wrong ones."""
    total = 0.0
    for ours, theirs, target in zip(outputs.tolist(), TAUGHT.tolist(), TARGETS.tolist(), strict=True):
        kept = [c for c in range(CLASSES) if not (leaves_out_the_true_class and c == target)]
        q, p = (shares([row[c] for c in kept], temperature) for row in (ours, theirs))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / SAMPLES


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("divergence", "leaves_out"), [(softened, False), (not_true, True)])
def test_value_and_gradient_are_those_of_the_formula(divergence, leaves_out: bool, temperature: float) -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    value = divergence(outputs, TAUGHT, TARGETS, temperature)
    value.backward()
    assert value.item() == pytest.approx(by_hand(OUTPUTS, temperature, leaves_out), rel=1e-12)
    step = 1e-6
    for place in range(SAMPLES * CLASSES):
        moved = [OUTPUTS.clone() for _ in range(2)]
        moved[0].view(-1)[place] += step
        moved[1].view(-1)[place] -= step
        up, down = (by_hand(outputs, temperature, leaves_out) for outputs in moved)
        assert outputs.grad.view(-1)[place].item() == pytest.approx((up - down) / (2 * step), abs=1e-7)


def test_not_true_distillation_says_nothing_of_the_true_class() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    not_true(outputs, TAUGHT, TARGETS, 2.0).backward()
    true = F.one_hot(TARGETS, CLASSES).bool()
    assert not outputs.grad[true].any()
    assert outputs.grad[~true].all()


@pytest.mark.parametrize("divergence", [softened, not_true])
def test_each_token_of_a_window_is_a_prediction(divergence) -> None:
    windows = (OUTPUTS.view(2, 3, CLASSES), TAUGHT.view(2, 3, CLASSES), TARGETS.view(2, 3))
    assert divergence(*windows, 2.0) == divergence(OUTPUTS, TAUGHT, TARGETS, 2.0)


X, Y = torch.randn(30, 6, generator=random), torch.arange(30) % 3


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))


@pytest.mark.parametrize(("distill", "weight"), [("global", 0.1), ("not-true", 1.0)])
def test_the_weight_of_each_term_is_its_papers_unless_the_settings_say_another(distill: str, weight: float) -> None:
    model, usual = FlatModel(network()), Config.from_mapping({"distill": distill})
    for config, expected in ((usual, weight), (usual.replace(distill_weight=0.7), 0.7)):
        lesson = Lesson.of_the_round(config, model)
        assert (lesson.weight, lesson.labels, lesson.temperature) == (expected, 1.0, 1.0)


@pytest.mark.parametrize(("distill", "divergence"), [("global", softened), ("not-true", not_true)])
def test_a_client_also_follows_the_weights_that_it_started_from(distill: str, divergence) -> None:
    model, reference = FlatModel(network()), network()
    teacher = copy.deepcopy(reference).eval()
    settings = {"batch-size": 10, "epochs": 2, "distill": distill, "distill-weight": 5, "distill-temperature": 2}
    config = Config.from_mapping(settings)
    task, timer = Task(), StageTimer()
    score = train(model, lambda i: (X[i], Y[i]), 30, config, task, round=1, seed=3, timer=timer)
    shuffle, losses = torch.Generator().manual_seed(3), []
    for _ in range(2):
        for batch in torch.randperm(30, generator=shuffle).split(10):
            outputs = reference(X[batch])
            losses.append(F.cross_entropy(outputs, Y[batch]))
            whole = losses[-1] + 5 * divergence(outputs, teacher(X[batch]), Y[batch], 2.0)
            gradients = torch.autograd.grad(whole, list(reference.parameters()))
            with torch.no_grad():
                for p, gradient in zip(reference.parameters(), gradients, strict=True):
                    p -= 0.1 * gradient
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(model.module.state_dict()[name], tensor)
    assert score.loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5), "the loss is that of the task"
