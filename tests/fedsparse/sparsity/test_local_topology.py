"""A topology during local training."""

import pytest
import torch
from torch import nn

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.config import Config
from fedsparse.plugins import named
from fedsparse.sparsity import Topology, weight_layers
from fedsparse.sparsity.densities import erk
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.evaluation import dense_gradient
from fedsparse.training.loop import train
from fedsparse.vector import FlatModel
from tests.fedsparse.sparsity.architectures import generator

SAMPLES = 60
X = torch.randn(SAMPLES, 1, 6, 6, generator=generator(1))
Y = torch.randint(0, 10, (SAMPLES,), generator=generator(2))


def fetch(positions):
    return X[positions], Y[positions]


def model() -> FlatModel:
    torch.manual_seed(0)
    return FlatModel(
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 20), nn.Linear(20, 10)
        )
    )


def start(flat: FlatModel, sparsity: float = 0.6) -> Topology:
    layers = weight_layers(flat.module, flat.layout, [])
    topology = Topology.random(layers, flat.layout.parameters, erk(layers, sparsity), generator(3))
    topology.apply_(flat.vector)
    return topology


def play(name: str, round: int = 1, sparsity: float = 0.6, **settings: object) -> tuple[FlatModel, Topology, Topology]:
    """Train one client: its model, the topology before, and after."""
    flat = model()
    topology = start(flat, sparsity)
    method = named(TOPOLOGIES, name)(sparsity, interval=1, end=10, growth=settings.pop("growth", "gradient"))
    local = LocalTopology(flat, topology, method, round, seed=0)
    config = Config.from_mapping({"lr": 0.1, "batch_size": 10} | settings)
    train(flat, fetch, SAMPLES, config, Task(), round=round, seed=0, timer=StageTimer(), topology=local)
    return flat, topology, local.topology


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("name", ["static", "feddst", "sparsyfed"])
def test_masked_weights_are_exactly_zero_after_momentum_and_weight_decay(name, clip, strategy):
    flat, _, after = play(name, momentum=0.9, weight_decay=0.1, clip_norm=clip, strategy=strategy, epochs=3)
    gone = flat.vector[: flat.layout.parameters][~after.mask]
    assert len(gone) > 800
    assert not gone.any()
    assert not gone.signbit().any()
    assert flat.vector.isfinite().all()


@pytest.mark.parametrize("batch_size", [10, 60])
def test_one_local_epoch_still_readjusts_and_trains_grown_weights(batch_size):
    flat, before, after = play("feddst", epochs=1, batch_size=batch_size)
    grown = after.mask & ~before.mask
    assert after.counts == before.counts
    assert int(grown.sum()) > 100
    assert (flat.vector[: flat.layout.parameters][grown] != 0).float().mean() > 0.9


def test_a_client_readjusts_only_in_readjustment_rounds_of_a_method_in_which_clients_choose():
    for name, round in (("feddst", 10), ("rigl", 1), ("static", 1)):
        _, before, after = play(name, round=round)
        assert after is before


def test_the_optimizer_forgets_every_weight_that_changed():
    flat = model()
    topology = start(flat)
    method = named(TOPOLOGIES, "feddst")(0.6, interval=1, end=10)
    local = LocalTopology(flat, topology, method, 1, seed=0)
    optimizer = torch.optim.SGD(flat.module.parameters(), lr=0.1, momentum=0.9)
    local.begin(optimizer, steps=2)
    for _ in range(2):
        if local.topology is topology:
            before = [optimizer.state.get(p, {}).get("momentum_buffer") for p in local.parameters]
        for p in local.parameters:
            p.grad = torch.randn(p.shape, generator=generator(5))
        local.before_step()
        if local.topology is not topology:
            break
        optimizer.step()
    changed = flat.views(local.topology.mask ^ topology.mask)
    assert any(at.any() for at in changed)
    for buffer, at in zip(before, changed, strict=True):
        assert not buffer[at].any()


def test_growth_follows_the_gradient_chance_or_an_average():
    masks = {growth: play("feddst", growth=growth)[2].hash for growth in ("gradient", "random", "momentum")}
    assert len(set(masks.values())) == 3


def test_when_every_weight_exists_training_equals_dense_training_to_the_bit():
    sparse = play("static", sparsity=0.0, momentum=0.9)[0]
    dense = model()
    config = Config.from_mapping({"lr": 0.1, "batch_size": 10, "momentum": 0.9})
    train(dense, fetch, SAMPLES, config, Task(), round=1, seed=0, timer=StageTimer())
    assert torch.equal(sparse.vector, dense.vector)


def test_powerpropagation_makes_the_step_of_the_reparameterised_weights():
    flat, alpha, lr = model(), 1.25, 0.1
    topology = start(flat, 0.0)
    w = flat.vector[: flat.layout.parameters].clone()
    gradient = torch.randn(w.shape, generator=generator(4))
    local = LocalTopology(flat, topology, named(TOPOLOGIES, "sparsyfed")(0.5), 1, seed=0)
    optimizer = torch.optim.SGD(flat.module.parameters(), lr=lr)
    local.begin(optimizer, 1)
    for p, g in zip(local.parameters, flat.views(gradient), strict=True):
        p.grad = g.clone()
    local.before_step()
    optimizer.step()
    local.after_step()
    psi = w.sign() * w.abs() ** (1 / alpha)
    psi -= lr * gradient * alpha * psi.abs() ** (alpha - 1)
    powered = psi.sign() * psi.abs() ** alpha
    expected = torch.where(topology.prunable, powered, w - lr * gradient)
    torch.testing.assert_close(flat.vector[: flat.layout.parameters], expected)


def test_the_dense_gradient_is_the_gradient_of_the_mean_loss_for_any_batches():
    flat = model()
    whole, parts = (dense_gradient(flat, fetch, SAMPLES, Task(), batch_size) for batch_size in (60, 7))
    flat.module.eval().zero_grad()
    nn.functional.cross_entropy(flat.module(X), Y).backward()
    expected = torch.cat([p.grad.flatten() for p in flat.module.parameters()])
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(parts, expected, rtol=1e-4, atol=1e-6)
