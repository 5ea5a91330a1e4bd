"""Clients with networks of several sizes in one federation."""

import math
from collections import Counter

import pytest
import torch
from flwr.app import Message
from torch import Tensor, nn
from torch.nn import functional as F

from fedsparse.client_models import model_of, shares_of
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.preflight import check
from fedsparse.seeds import derive_seed
from fedsparse.strategies.fedavg import FedAvg
from tests.strategies.federation import TRAFFIC, binding_of, federation, play, play_round

ENSEMBLE = {"distill": "ensemble", "distill-samples": 40, "distill-steps": 7, "distill-lr": 0.01}
SETTINGS = {"sparsity": 0, "eval-clients": False, "client-models": "mlp-small,lenet5"} | ENSEMBLE


def weights_of(strategy: FedAvg) -> dict[str, Tensor]:
    """A copy of every network's weights."""
    return {name: model.weights.clone() for name, model in strategy.models.items()}


def network(experiment: Experiment, weights: Tensor) -> nn.Module:
    """The network of an experiment, with these weights."""
    module = experiment.network(0)
    nn.utils.vector_to_parameters(weights.clone(), module.parameters())  # which keeps views of it
    return module


def distilled(student: nn.Module, inputs: Tensor, teacher: Tensor, config: Config) -> Tensor:
    """The weights after FedDF's steps, in plain torch: Adam, a cosine, and the divergence from the teacher's scores."""
    adam = torch.optim.Adam(student.parameters(), config.distill_lr)
    shuffle = torch.Generator().manual_seed(derive_seed(config.seed, "distill", round=1))
    batches = iter([part for _ in range(99) for part in torch.randperm(40, generator=shuffle).split(config.batch_size)])
    for step in range(config.distill_steps):
        adam.param_groups[0]["lr"] = config.distill_lr * (1 + math.cos(math.pi * step / config.distill_steps)) / 2
        positions = next(batches)
        adam.zero_grad()
        ours = student(inputs[positions]).log_softmax(1)
        F.kl_div(ours, teacher[positions].softmax(1), reduction="batchmean").backward()
        adam.step()
    return nn.utils.parameters_to_vector(student.parameters()).detach()


def update_of(message: Message, reply: Message, experiment: Experiment) -> tuple[Tensor, int]:
    update = decode(reply.content["arrays"]["update"].data, experiment.layout, binding_of(message))
    return torch.from_numpy(update.to_dense()), reply.content["metrics"]["num-examples"]


def test_a_round_is_algorithm_3_of_feddf_in_plain_torch(tiny_dataset: str) -> None:
    """mlp is held by no client, so that it has no mean to start from, and is taught from its present weights."""
    with federation(tiny_dataset, **SETTINGS | {"model": "mlp", "compressor": "none"}) as (strategy, grid):
        before = weights_of(strategy)
        play_round(strategy, grid, 1)
        after, config = weights_of(strategy), strategy.config
        experiments = {name: model.experiment for name, model in strategy.models.items()}
    local: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in experiments}
    for message, reply in TRAFFIC:
        name = config.model_of(message.metadata.dst_node_id)
        local[name].append(update_of(message, reply, experiments[name]))
    assert [bool(clients) for clients in local.values()] == [False, True, True], (
        "the test needs clients of both networks"
    )
    data = experiments["mlp"].data
    inputs = data.fetch(experiments["mlp"].set_apart)(torch.arange(40))[0]
    with torch.no_grad():
        models = [network(experiments[n], before[n] + u).eval() for n, clients in local.items() for u, _ in clients]
        teacher = torch.stack([model(inputs) for model in models]).mean(0)
    for name, clients in local.items():
        samples = sum(n for _, n in clients)
        mean = before[name] + sum(n * update for update, n in clients) / max(samples, 1)
        expected = distilled(network(experiments[name], mean), inputs, teacher, config)
        torch.testing.assert_close(after[name], expected, rtol=1e-3, atol=1e-4)
        assert (after[name] - mean).abs().max() > 10 * 1e-4


@pytest.mark.parametrize("more", [ENSEMBLE, {"strategy": "fedadam", "downlink-compressor": "topk"}])
def test_one_network_for_all_clients_gives_the_bits_of_a_run_without_the_setting(
    tiny_dataset: str, more: dict[str, object]
) -> None:
    settings = {"sparsity": 0, "model": "mlp-small"} | more
    one, same = (play(tiny_dataset, 3, **settings, **extra) for extra in ({}, {"client-models": "mlp-small:0.3"}))
    for a, b in zip(one, same, strict=True):
        assert torch.equal(a.weights, b.weights)
        assert {k: v for k, v in a.metrics.items() if "time/" not in k} == {
            k: v for k, v in b.metrics.items() if "time/" not in k
        }


def test_a_client_gets_and_sends_the_weights_of_its_own_network_alone(tiny_dataset: str) -> None:
    with federation(tiny_dataset, **SETTINGS | {"compressor": "topk", "density": 0.05}) as (strategy, grid):
        for round in (1, 2, 3):
            TRAFFIC.clear()
            play_round(strategy, grid, round)
            down = up = 0
            for message, reply in TRAFFIC:
                layout = strategy.models[strategy.config.model_of(message.metadata.dst_node_id)].layout
                sent, received = (each.content["arrays"] for each in (message, reply))
                assert 4 * layout.size < len(sent["weights"].data) < 4 * layout.size + 100
                decode(received["update"].data, layout, binding_of(message))
                down, up = down + len(sent["weights"].data), up + len(received["update"].data)
            assert len({strategy.config.model_of(m.metadata.dst_node_id) for m, _ in TRAFFIC}) == 2
            metrics = strategy.cohort.tally.metrics
            assert (metrics["comm/downlink_bytes"], metrics["comm/uplink_bytes"]) == (down, up)


def test_networks_learn_nothing_of_one_another_without_distillation(tiny_dataset: str) -> None:
    """mlp-small's clients send the same updates whatever the network of the others."""
    ends = []
    for other in ("lenet5", "cnn-small"):
        settings = {"sparsity": 0, "model": "mlp-small", "client-models": f"mlp-small,{other}"}
        ends.append(play(tiny_dataset, 3, **settings)[-1].weights)
    assert torch.equal(*ends)


def test_a_network_whose_clients_are_all_absent_keeps_its_weights_without_distillation(tiny_dataset: str) -> None:
    settings = SETTINGS | {"distill": "off", "clients-per-round": 1, "compressor": "none"}
    with federation(tiny_dataset, **settings) as (strategy, grid):
        held = []
        for round in range(1, 8):
            before = weights_of(strategy)
            play_round(strategy, grid, round)
            held.append(strategy.config.model_of(strategy.cohort.clients[0]))
            changed = {name for name, weights in weights_of(strategy).items() if not torch.equal(weights, before[name])}
            assert changed == {held[-1]}
    assert set(held) == {"mlp-small", "lenet5"}


def test_every_network_is_factored_at_the_switch(tiny_dataset: str) -> None:
    settings = {"lowrank-layers": "progressive", "lowrank-switch-round": 2, "lowrank-rank": 3, "dense-layers": "last"}
    with federation(tiny_dataset, **SETTINGS | settings) as (strategy, grid):
        for round in range(1, 5):
            before = {name: model.layout.size for name, model in strategy.models.items()}
            play_round(strategy, grid, round)
            smaller = {name for name, model in strategy.models.items() if model.layout.size < before[name]}
            assert smaller == (set(before) if round == 2 else set())
            assert not strategy.cohort.tally.failures


def test_an_update_of_another_network_is_refused(tiny_dataset: str) -> None:
    with federation(tiny_dataset, **SETTINGS) as (strategy, grid):
        messages = strategy.configure_train(1, strategy.broadcast(1), {}, grid)
        replies = list(grid.send_and_receive(messages))
        held = [strategy.config.model_of(reply.metadata.src_node_id) for reply in replies]
        victim, other = (held.index(name) for name in ("mlp-small", "lenet5"))
        replies[victim].content["arrays"]["update"] = replies[other].content["arrays"]["update"]
        strategy.aggregate_train(1, replies)
        (failure,) = strategy.cohort.tally.failures
        assert "its reply is refused" in failure
        assert strategy.cohort.tally.metrics["comm/clients"] == len(replies) - 1


def test_clients_draw_their_networks_by_the_shares() -> None:
    text = "cnn-small:1,mlp-small:2.5,mine.py:Net:0.5,lenet5"
    assert shares_of(text) == {"cnn-small": 1, "mlp-small": 2.5, "mine.py:Net": 0.5, "lenet5": 1}
    drawn = Counter(model_of(client, text, seed=3) for client in range(4000))
    assert {name: round(5 * count / 4000, 1) for name, count in drawn.items()} == pytest.approx(
        shares_of(text), abs=0.2
    )
    assert [model_of(client, text, 3) for client in range(50)] == [model_of(client, text, 3) for client in range(50)]
    assert [model_of(client, text, 3) for client in range(50)] != [model_of(client, text, 4) for client in range(50)]


def test_results_are_about_the_first_network_unless_a_model_is_named() -> None:
    held = {"client-models": "mlp-small,lenet5"}
    assert Config.from_mapping(held).models == ("mlp-small", "lenet5")
    assert Config.from_mapping(held | {"model": "lenet5"}).models == ("lenet5", "mlp-small")
    assert Config.from_mapping(held | {"model": "cnn", "distill": "ensemble"}).models == ("cnn", "mlp-small", "lenet5")


@pytest.mark.parametrize(
    "text", ["mlp-small,mlp-small:2", "mlp-small:0", "mlp-small:-1", "mlp-small:1e999", "mlp-small:half"]
)
def test_shares_that_mean_nothing_are_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="each once, with shares above 0") as error:
        Config.from_mapping({"client-models": text})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"secure-aggregation": True, "compressor": "none"}, "updates of different networks have no sum"),
        ({"dp-noise": 1}, "updates of different networks have no sum"),
        ({"attack": "noise"}, "updates of different networks have no sum"),
        ({"aggregator": "median"}, "aggregator = median does not go with it"),
        ({"sparsity": 0.5, "topology": "set"}, "topology = set does not go with it"),
        ({"upload-pruning": "magnitude"}, "upload-pruning = magnitude does not go with it"),
        ({"lora-rank": 2}, "lora-rank = 2 does not go with it"),
        ({"init": "model.pt"}, "init = model.pt does not go with it"),
        ({"exits": 1, "depths": "1"}, "depths = 1 does not go with it"),
        ({"model": "cnn"}, "no client holds model = cnn"),
    ],
)
def test_what_several_networks_cannot_be_combined_with_is_one_line(settings: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=r"^client-models = mlp-small,lenet5: ") as error:
        Config.from_mapping({"client-models": "mlp-small,lenet5"} | settings)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_every_network_is_looked_at_before_the_run(tiny_dataset: str) -> None:
    config = Config.from_mapping({"dataset": tiny_dataset, "clients": 10, "client-models": "mlp-small,gpt2-nano"})
    with pytest.raises(ConfigError, match="model = gpt2-nano: reads text, and the data is images"):
        check(Experiment(config))
