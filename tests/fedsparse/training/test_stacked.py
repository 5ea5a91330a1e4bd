"""Clients that train together, against the same clients one by one."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from fedsparse.config import Config
from fedsparse.models import build_model
from fedsparse.sparsity.feddst import FedDST
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.sparsity.rigl import RigL
from fedsparse.sparsity.sparsyfed import SparsyFed
from fedsparse.sparsity.static import Dense, Static
from fedsparse.sparsity.topology import weight_layers
from fedsparse.tasks import Language, Task
from fedsparse.telemetry.step_log import StepEntry, StepLog
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.evaluation import Score
from fedsparse.training.loop import train
from fedsparse.training.stacked import TOGETHER, group_size, train_cohort, why_alone
from fedsparse.vector import FlatModel

SIZES = (37, 24, 9, 8, 1)  # several batches of 8 with a remainder, none, less than one, one sample
X = torch.randn(sum(SIZES), 1, 12, 12, generator=torch.Generator().manual_seed(0))
Y = torch.arange(sum(SIZES)) % 3
STARTS = torch.tensor((0, *SIZES)).cumsum(0)[:-1]


def model(name: str = "cnn-small") -> FlatModel:
    return FlatModel(build_model(name, (1, 12, 12), 3, "group", seed=1))


def together(
    name: str,
    sizes: tuple[int, ...],
    config: Config,
    network: FlatModel | None = None,
    mask: Tensor | None = None,
    logs: Sequence[StepLog] = (),
) -> tuple[Tensor, list[Score]]:
    def fetch(positions: Tensor) -> tuple[Tensor, Tensor]:
        at = positions + STARTS[: len(positions), None]
        return X[at], Y[at]

    seeds = list(range(len(sizes)))
    network = network or model(name)
    options = {"round": 1, "seeds": seeds, "timer": StageTimer(), "mask": mask, "logs": logs}
    return train_cohort(network, fetch, sizes, config, Task(), **options)


def alone(name: str, client: int, config: Config, log: StepLog | None = None) -> tuple[Tensor, Score]:
    def fetch(positions: Tensor) -> tuple[Tensor, Tensor]:
        return X[positions + STARTS[client]], Y[positions + STARTS[client]]

    one = model(name)
    score = train(one, fetch, SIZES[client], config, Task(), round=1, seed=client, timer=StageTimer(), log=log)
    return one.vector, score


@pytest.mark.parametrize("name", ["mlp-small", "cnn-small"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"clip_norm": 0.3, "momentum": 0.5},
        {"batch_size": 2**31},
        {"local_steps": 7, "optimizer": "adamw", "weight_decay": 0.3, "lr": 0.01, "clip_norm": 0.5},
        {"strategy": "fedprox", "proximal_mu": 0.7, "clip_norm": 0.3},
    ],
)
def test_every_client_ends_with_the_weights_that_it_would_have_alone(name: str, settings: dict) -> None:
    config = Config.from_mapping({"batch_size": 8, "epochs": 2, "lr": 0.1} | settings)
    weights, scores = together(name, SIZES, config)
    for client in range(len(SIZES)):
        expected, score = alone(name, client, config)
        small = 1e-4 if "optimizer" in settings else 1e-6  # AdamW makes steps of one size from gradients near zero
        torch.testing.assert_close(weights[client], expected, rtol=1e-4, atol=small)
        assert scores[client].samples == score.samples
        assert (scores[client].loss, scores[client].accuracy) == pytest.approx((score.loss, score.accuracy), rel=1e-5)


def test_the_step_log_of_every_client_is_the_one_that_it_would_have_alone() -> None:
    config = Config.from_mapping({"batch_size": 8, "epochs": 2, "lr": 0.1})
    told: list[list[StepEntry]] = [[] for _ in SIZES]
    together("mlp-small", SIZES, config, logs=[StepLog(2, StageTimer(), entries.append) for entries in told])
    for client, entries in enumerate(told):
        expected: list[StepEntry] = []
        alone("mlp-small", client, config, StepLog(2, StageTimer(), expected.append))
        assert [entry.step for entry in entries] == [entry.step for entry in expected]
        assert [entry.loss for entry in entries] == pytest.approx([entry.loss for entry in expected], rel=1e-4)


def test_group_normalisation_and_residual_blocks_train_together() -> None:
    config = Config.from_mapping({"batch_size": 4, "lr": 0.05})
    weights, _ = together("resnet18", (5, 4), config)
    for client, size in enumerate((5, 4)):
        one = model("resnet18")
        start = int(STARTS[client])
        train(
            one, lambda i, start=start: (X[i + start], Y[i + start]), size, config, Task(),
            round=1, seed=client, timer=StageTimer(),
        )  # fmt: skip
        torch.testing.assert_close(weights[client], one.vector, rtol=1e-3, atol=1e-4)


def test_a_small_gpt_trains_together_and_an_lstm_alone() -> None:
    tokens = torch.randint(0, 20, (sum(SIZES), 9), generator=torch.Generator().manual_seed(0))
    config = Config.from_mapping({"batch_size": 4, "lr": 0.1, "momentum": 0.9, "cohort-batching": "on"})

    def fetch(positions: Tensor) -> tuple[Tensor, Tensor]:
        return tokens[positions][..., :-1], tokens[positions][..., 1:]

    def text(name: str) -> FlatModel:
        return FlatModel(build_model(name, (8,), 20, "group", seed=1))

    starts = torch.tensor([[0], [5]])
    weights, scores = train_cohort(
        text("gpt2-nano"), lambda i: fetch(i + starts[: len(i)]), (5, 3), config, Language(1.0),
        round=1, seeds=[0, 1], timer=StageTimer(),
    )  # fmt: skip
    for client, (start, size) in enumerate(((0, 5), (5, 3))):
        one = text("gpt2-nano")
        score = train(
            one, lambda i, start=start: fetch(i + start), size, config, Language(1.0),
            round=1, seed=client, timer=StageTimer(),
        )  # fmt: skip
        torch.testing.assert_close(weights[client], one.vector, rtol=1e-3, atol=1e-5)
        assert scores[client].loss == pytest.approx(score.loss, rel=1e-5)
    assert why_alone(config, text("gpt2-nano"), Dense(0.0)) == ""
    assert why_alone(config, text("lstm"), Dense(0.0)) == "LSTM"


def test_the_global_weights_stay_as_they_were() -> None:
    one = model()
    before = one.vector.clone()
    config = Config.from_mapping({"batch_size": 8})
    train_cohort(one, lambda p: (X[p], Y[p]), (9, 3), config, Task(), round=1, seeds=(0, 1), timer=StageTimer())
    assert torch.equal(one.vector, before)


def test_a_setting_that_needs_one_client_at_a_time_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    batch_norm = FlatModel(build_model("resnet18", (1, 12, 12), 3, "batch", seed=0))
    dropout = FlatModel(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)))
    config = Config.from_mapping({"cohort_batching": "on"})
    assert why_alone(config, model(), Dense(0.0)) == ""
    assert group_size(config, model(), Dense(0.0)) == TOGETHER
    assert (group_size(config, batch_norm, Dense(0.0)), group_size(config, dropout, Dense(0.0))) == (1, 1)
    assert "running statistics" in caplog.messages[0]
    assert "dropout" in caplog.messages[1]
    for settings in ({"amp": "bf16"}, {"accumulate": 2}, {"augment": True}, {"compile": True}, {"recompute": True}):
        assert why_alone(Config.from_mapping(settings), model(), Dense(0.0)) == next(iter(settings))
    for method in (FedDST(0.5), SparsyFed(0.5, alpha=1.25)):
        assert why_alone(config, model(), method) == "method"
    assert why_alone(config, model(), RigL(0.5)) == ""


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "weight_decay": 0.01, "clip_norm": 0.3}])
def test_missing_weights_stay_zero_and_the_other_weights_train_as_alone(settings: dict) -> None:
    config = Config.from_mapping({"batch_size": 8, "epochs": 2} | settings)
    network = model()
    layers = weight_layers(network.module, network.layout, [])
    topology = Static(0.8).initial(layers, network.layout.parameters, torch.Generator().manual_seed(0))
    topology.apply_(network.vector)
    start = network.vector.clone()
    weights, _ = together("", SIZES, config, network, topology.mask)
    assert (weights[:, ~topology.mask] == 0).all()
    for client, size in enumerate(SIZES):
        network.vector.copy_(start)
        local = LocalTopology(network, topology, Static(0.8), 1, 0)
        train(
            network, lambda p, c=client: (X[p + STARTS[c]], Y[p + STARTS[c]]), size, config, Task(),
            round=1, seed=client, timer=StageTimer(), topology=local,
        )  # fmt: skip
        torch.testing.assert_close(weights[client], network.vector, rtol=1e-4, atol=1e-6)


def test_auto_trains_one_by_one_on_the_cpu() -> None:
    assert group_size(Config(), model("mlp-small"), Dense(0.0)) == 1
