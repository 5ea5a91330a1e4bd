"""The local loop, against a plain PyTorch loop."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.config import Config
from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.evaluation import Score, evaluate
from fedsparse.training.local_step import learning_rate
from fedsparse.training.loop import train
from fedsparse.vector import FlatModel

X, Y = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3


def fetch(positions: Tensor) -> tuple[Tensor, Tensor]:
    return X[positions], Y[positions]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def run(**settings: object) -> FlatModel:
    model = FlatModel(network())
    config = Config.from_mapping({"batch_size": 16, "epochs": 2, "lr": 0.1} | settings)
    train(model, fetch, 50, config, Task(), round=1, seed=3, timer=StageTimer())
    return model


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"clip_norm": 0.5}])
def test_training_equals_a_plain_loop(settings: dict) -> None:
    module = network()
    optimizer = torch.optim.SGD(
        module.parameters(), 0.1, settings.get("momentum", 0), weight_decay=settings.get("weight_decay", 0)
    )
    shuffle = torch.Generator().manual_seed(3)
    for _ in range(2):
        for batch in torch.randperm(50, generator=shuffle).split(16):
            optimizer.zero_grad()
            F.cross_entropy(module(X[batch]), Y[batch]).backward()
            if "clip_norm" in settings:
                nn.utils.clip_grad_norm_(module.parameters(), settings["clip_norm"])
            optimizer.step()
    plain = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(run(**settings).vector, plain)


def test_the_proximal_gradient_is_mu_times_the_difference_from_the_global_weights() -> None:
    mu, lr = 0.7, 0.1
    model = FlatModel(network())
    anchor = [p.detach().clone() for p in model.module.parameters()]
    reference = copy.deepcopy(model.module)
    shuffle = torch.Generator().manual_seed(3)
    for batch in torch.randperm(50, generator=shuffle).split(16):
        loss = F.cross_entropy(reference(X[batch]), Y[batch])
        loss = loss + mu / 2 * sum((p - a).square().sum() for p, a in zip(reference.parameters(), anchor, strict=True))
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for p, g in zip(reference.parameters(), gradients, strict=True):
                p -= lr * g
    prox = run(strategy="fedprox", proximal_mu=mu, epochs=1)
    torch.testing.assert_close(prox.vector, torch.cat([p.detach().reshape(-1) for p in reference.parameters()]))
    assert not torch.allclose(prox.vector, run(epochs=1).vector)


@pytest.mark.parametrize("pieces", [2, 3, 100])
def test_accumulating_gradients_changes_memory_not_results(pieces: int) -> None:
    torch.testing.assert_close(run(accumulate=pieces).vector, run().vector)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_follows_full_precision_within_its_rounding(amp: str) -> None:
    full, mixed = run(lr=0.02, epochs=1).vector, run(lr=0.02, epochs=1, amp=amp).vector
    start = FlatModel(network()).vector
    assert mixed.dtype == torch.float32
    assert not torch.equal(full, mixed)
    assert (mixed - full).norm() < 0.05 * (full - start).norm()


def fp16(factor: float, **settings: object) -> tuple[FlatModel, Score]:
    """One epoch in float16 on inputs, and so with gradients, that are ``factor`` times as large."""
    model, config = FlatModel(network()), Config.from_mapping({"batch_size": 16, "amp": "fp16", "lr": 1e-3} | settings)
    big = lambda i: (factor * X[i], Y[i])  # noqa: E731
    return model, train(model, big, 50, config, Task(), round=1, seed=3, timer=StageTimer())


def test_in_float16_no_step_is_lost_to_gradients_above_one() -> None:
    (full, _), (half, score) = fp16(20, amp="off"), fp16(20)
    start = FlatModel(network()).vector
    assert score.tagged("train/", Task())["amp/skipped_steps"] == 0
    assert (half.vector - full.vector).norm() < 0.02 * (full.vector - start).norm()


def test_steps_that_overflow_in_float16_are_counted() -> None:
    model, score = fp16(1e4, batch_size=50)  # a single step
    assert score.tagged("train/", Task())["amp/skipped_steps"] == 1
    assert torch.equal(model.vector, FlatModel(network()).vector)
    assert "amp/skipped_steps" not in fp16(1, amp="off")[1].tagged("train/", Task())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_recomputing_activations_changes_nothing_not_even_batchnorms_statistics(name: str) -> None:
    from fedsparse.models import build_model
    from fedsparse.models.speed import recompute_blocks

    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    results = []
    for recompute in (False, True):
        model = FlatModel(build_model(name, (3, 16, 16), 10, "batch", seed=0))
        for dropout in (m for m in model.module.modules() if isinstance(m, nn.Dropout)):
            dropout.p = 0.0
        if recompute:
            recompute_blocks(model.module)
        config = Config.from_mapping({"batch_size": 4, "epochs": 1})
        train(model, lambda i: (images[i], labels[i]), 4, config, Task(), round=1, seed=0, timer=StageTimer())
        results.append(model.vector)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiling_the_model_changes_speed_not_results() -> None:
    model = FlatModel(network())
    model.module.compile()
    config = Config.from_mapping({"batch_size": 16, "epochs": 2, "lr": 0.1})
    train(model, fetch, 50, config, Task(), round=1, seed=3, timer=StageTimer())
    torch.testing.assert_close(model.vector, run().vector, rtol=1e-4, atol=1e-6)


def test_every_epoch_sees_every_sample_once() -> None:
    seen = []

    def spy(positions: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(positions)
        return fetch(positions)

    config = Config.from_mapping({"batch_size": 16, "epochs": 3})
    score = train(FlatModel(network()), spy, 50, config, Task(), round=1, seed=0, timer=StageTimer())
    assert score.samples == 150
    for epoch in range(3):
        assert sorted(torch.cat(seen[4 * epoch : 4 * epoch + 4]).tolist()) == list(range(50))


def test_evaluation_is_the_mean_over_samples_whatever_the_batch_size() -> None:
    model = FlatModel(network())
    whole, parts = evaluate(model, fetch, 50, Task()), evaluate(model, fetch, 50, Task(), batch_size=7)
    assert whole.accuracy == parts.accuracy == (model.module(X).argmax(1) == Y).sum().item() / 50
    assert whole.loss == pytest.approx(parts.loss)
    assert whole.loss == pytest.approx(F.cross_entropy(model.module(X), Y).item(), rel=1e-6)


def test_a_client_that_holds_out_nothing_has_a_loss_of_zero_over_no_samples() -> None:
    assert evaluate(FlatModel(network()), fetch, 0, Task()) == Score(0.0, 0.0, 0)


def test_schedules_start_at_lr_and_fall() -> None:
    cosine = Config.from_mapping({"lr_schedule": "cosine", "lr": 0.2, "rounds": 10})
    rates = [learning_rate(cosine, r) for r in range(1, 11)]
    assert rates[0] == 0.2
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01
    step = Config.from_mapping({"lr_schedule": "step", "lr": 1.0, "rounds": 8})
    assert [learning_rate(step, r) for r in range(1, 9)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    exponential = Config.from_mapping({"lr_schedule": "exponential", "lr": 0.1, "lr_decay": 0.998, "rounds": 999})
    scheduler = torch.optim.lr_scheduler.ExponentialLR(
        optimizer := torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1), 0.998
    )
    for round in range(1, 1000):
        assert learning_rate(exponential, round) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_adamw_equals_torchs_and_decays_only_the_weights_of_layers() -> None:
    module = nn.Sequential(nn.Embedding(5, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    decays = [module[2].weight]
    rest = [p for p in module.parameters() if p is not decays[0]]
    start = copy.deepcopy(module)
    expected = torch.optim.AdamW(
        [{"params": decays, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}], 0.01, (0.9, 0.8)
    )
    tokens, targets = torch.arange(40) % 5, torch.arange(40) % 3
    for batch in torch.randperm(40, generator=torch.Generator().manual_seed(3)).split(16):
        expected.zero_grad()
        F.cross_entropy(module(tokens[batch]), targets[batch]).backward()
        expected.step()
    model = FlatModel(start)
    settings = {"optimizer": "adamw", "adam-beta2": 0.8, "weight-decay": 0.3, "lr": 0.01, "batch-size": 16}
    config = Config.from_mapping(settings)
    train(model, lambda i: (tokens[i], targets[i]), 40, config, Task(), round=1, seed=3, timer=StageTimer())
    torch.testing.assert_close(model.vector, FlatModel(module).vector)


def test_local_steps_count_batches_and_shuffle_anew_when_the_samples_are_used_up() -> None:
    drawn: list[Tensor] = []

    def watched(positions: Tensor) -> tuple[Tensor, Tensor]:
        drawn.append(positions)
        return fetch(positions)

    config = Config.from_mapping({"local-steps": 7, "batch-size": 16})
    train(FlatModel(network()), watched, 50, config, Task(), round=1, seed=3, timer=StageTimer())
    assert [len(batch) for batch in drawn] == [16, 16, 16, 2, 16, 16, 16]
    assert torch.cat(drawn[:4]).sort().values.equal(torch.arange(50))
    assert not drawn[0].equal(drawn[4])


def test_the_learning_rate_warms_up_by_rounds_or_by_steps() -> None:
    config = Config.from_mapping({"lr": 1.0, "lr-schedule": "constant", "rounds": 10, "lr-warmup-rounds": 2})
    assert [learning_rate(config, round, 3, 4) for round in (1, 2, 3, 4)] == [0.25, 0.75, 1, 1]
    by_step = config.replace(**{"lr-schedule-by": "step"})
    assert [learning_rate(by_step, round, step, 2) for round, step in ((1, 0), (1, 1), (2, 1), (3, 0))] == [
        0.125, 0.375, 0.875, 1.0
    ]  # fmt: skip
    falling = by_step.replace(**{"lr-schedule": "cosine", "lr-warmup-rounds": 0})
    assert learning_rate(falling, 5, 1, 2) == pytest.approx((1 + math.cos(math.pi * 0.45)) / 2)


@pytest.mark.parametrize("settings", [{"optimizer": "adamw", "lr": 0.01}, {"momentum": 0.9}])
def test_kept_moments_make_two_rounds_one(settings: dict) -> None:
    def trained(rounds: int, steps: int, memory: dict | None) -> Tensor:
        config = Config.from_mapping({"batch-size": 50, "local-steps": steps, "lr-schedule": "constant"} | settings)
        model = FlatModel(network())
        for _ in range(rounds):
            train(model, fetch, 50, config, Task(), round=1, seed=3, timer=StageTimer(), memory=memory)
        return model.vector

    once = trained(1, 6, None)
    torch.testing.assert_close(trained(2, 3, {}), once)
    assert (trained(2, 3, None) - once).abs().max() > 1e-3, "without a memory the optimizer starts anew"
