"""Clients of several depths in one federation."""

import numpy as np
import pytest
import torch
from flwr.app import Message

from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.distillation.teacher import as_it_is
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.preflight import check
from fedsparse.sampling import sampled, sampled_again
from fedsparse.sparsity import Topology
from fedsparse.sparsity.compact import Compact
from fedsparse.sparsity.depths import part_of
from fedsparse.strategies.downlink import Downlink
from tests.strategies.federation import SETTINGS as FEDERATION
from tests.strategies.federation import TRAFFIC, binding_of, play

SETTINGS: dict[str, object] = {
    "exits": 2,
    "depths": "uniform:1:3",
    "sparsity": 0,
    "compressor": "none",
    "eval-clients": False,
}


def experiment_of(dataset: str, **settings: object) -> Experiment:
    return Experiment(Config.from_mapping(FEDERATION | {"dataset": dataset} | SETTINGS | settings))


def test_a_weight_is_averaged_over_the_clients_that_train_it_and_nothing_else_travels(tiny_dataset: str) -> None:
    before, after = play(tiny_dataset, rounds=1, **SETTINGS)
    experiment = experiment_of(tiny_dataset)
    layout, cohort = experiment.layout, [message.metadata.dst_node_id for message, _ in TRAFFIC]
    depths = [experiment.depth(client) for client in cohort]
    assert len(set(depths)) > 1, "the test needs clients of several depths"
    total, held = np.zeros(layout.size), np.zeros(layout.size)
    for (message, reply), depth in zip(TRAFFIC, depths, strict=True):
        part, samples = part_of(layout, depth), reply.content["metrics"]["num-examples"]
        assert set(reply.content["arrays"]) == {"update"}
        data = reply.content["arrays"]["update"].data
        own = layout if depth == 3 else Compact(layout, part).layout
        assert len(data) < 4 * own.size + 200
        update = decode(data, own, binding_of(message)).to_dense()
        total[part.mask] += samples * update
        held[part.mask] += samples
    mean = np.divide(total, held, out=np.zeros_like(total), where=held > 0)
    torch.testing.assert_close(after.weights - before.weights, torch.from_numpy(mean).float(), rtol=1e-3, atol=1e-6)


def test_a_client_downloads_the_weights_of_its_own_layers_alone(tiny_dataset: str) -> None:
    before, after = play(tiny_dataset, rounds=1, **SETTINGS)
    experiment = experiment_of(tiny_dataset)
    sizes = {}
    for message, _ in TRAFFIC:
        depth = experiment.depth(message.metadata.dst_node_id)
        data = message.content["arrays"]["weights"].data
        part = Compact(experiment.layout, part_of(experiment.layout, depth))
        assert torch.equal(torch.from_numpy(decode(data, part.layout).to_dense()), part.gather(before.weights))
        assert 4 * part.layout.size < len(data) < 4 * part.layout.size + 200
        sizes.setdefault(depth, set()).add(len(data))
    assert len(sizes) > 1, "the test needs clients of several depths"
    assert len(set().union(*sizes.values())) == len(sizes)
    assert after.metrics["comm/downlink_bytes"] == sum(sent_bytes(message) for message, _ in TRAFFIC)


def sent_bytes(message: Message) -> int:
    return sum(len(array.data) for record in message.content.array_records.values() for array in record.values())


def test_few_bits_of_a_part_are_those_of_the_whole(tiny_dataset: str) -> None:
    experiment = experiment_of(tiny_dataset, **{"weight-bits": 4, "float-layers": ""})
    layout, downlink = experiment.layout, Downlink(experiment.config)
    full = Compact(layout, Topology.full(experiment.layers, layout.parameters))
    part = Compact(layout, part_of(layout, 2))
    whole = downlink.broadcast(experiment.model.vector.clone(), experiment.model, full, round=1)
    own = downlink.arrays_for(0, whole, part)
    weights, short = whole["weights"].data, own["weights"].data
    assert len(short) < len(weights) < layout.size, "both have few bits"
    assert (decode(short, part.layout).to_dense() == decode(weights, layout).to_dense()[part_of(layout, 2).mask]).all()
    assert downlink.arrays_for(0, whole, part) is own, "a part is made once a round"


def test_a_client_evaluates_the_last_classifier_that_it_trains(tiny_dataset: str) -> None:
    settings = SETTINGS | {"depths": "1", "eval-clients": True, "eval-every": 1, "holdout": 0.3}
    *_, last = play(tiny_dataset, rounds=1, **settings)
    experiment = experiment_of(tiny_dataset, **settings)
    model, hits, count = experiment.model, 0.0, 0
    model.vector.copy_(last.weights)
    for message, _ in TRAFFIC:
        _, held_out = experiment.samples(message.metadata.dst_node_id)
        inputs, targets = experiment.fetch(held_out)(torch.arange(len(held_out)))
        with torch.no_grad():
            hits += int((model.module.eval().every(inputs, 1)[0].argmax(1) == targets).sum())
        count += len(held_out)
    assert last.metrics["eval/client_accuracy"] == pytest.approx(hits / count)


def test_a_teacher_is_as_deep_as_its_client(tiny_dataset: str) -> None:
    """The layers behind are not downloaded, so that a deeper teacher would teach at random."""
    model = experiment_of(tiny_dataset).model
    model.module.depth = 1
    inputs = torch.randn(3, *experiment_of(tiny_dataset).dataset.input_shape)
    with torch.no_grad():
        assert torch.equal(as_it_is(model)(inputs), model.module.every(inputs, 1)[0])


def test_clients_below_the_least_depth_take_no_part(tiny_dataset: str) -> None:
    settings = SETTINGS | {"least-depth": 2, "clients-per-round": 2}
    experiment = experiment_of(tiny_dataset, **settings)
    deep = {client for client in range(6) if experiment.depth(client) >= 2}
    assert 2 <= len(deep) < 6, "the test needs clients of several depths"
    play(tiny_dataset, rounds=4, **settings)
    assert {message.metadata.dst_node_id for message, _ in TRAFFIC} <= deep
    rounds = range(1, 200)
    assert {c for r in rounds for c in sampled(experiment.config, r, among=experiment.participants)} == deep
    assert set(sampled_again(experiment.config, 1, 2, set(), [], experiment.participants)) <= deep
    with pytest.raises(
        ConfigError, match=rf"^least-depth = 2: {len(deep)} of 6 clients have it, and clients-per-round = 6"
    ):
        check(experiment_of(tiny_dataset, **settings | {"clients-per-round": 6}))


def test_layers_that_no_client_of_a_cohort_trains_keep_their_bits(tiny_dataset: str) -> None:
    before, *_, last = play(tiny_dataset, rounds=2, **SETTINGS | {"depths": "1", "compressor": "topk"})
    experiment = experiment_of(tiny_dataset)
    trained = part_of(experiment.layout, 1).mask
    assert torch.equal(last.weights[~trained], before.weights[~trained])
    assert (last.weights[trained] != before.weights[trained]).any()


def test_running_statistics_are_refused_in_one_line(tiny_dataset: str) -> None:
    settings = {"dataset": tiny_dataset, "model": "vgg11", "exits": 1, "depths": "1", "clients": 10}
    with pytest.raises(ConfigError, match=r"^depths = 1: running statistics .* use --norm group$"):
        check(Experiment(Config.from_mapping(settings)))
    check(Experiment(Config.from_mapping(settings | {"norm": "group"})))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"activation-bits": 8}, "leave activation-bits out"),
        ({"lora-rank": 2, "lora-layers": "stages.2.*"}, "clients of depth 1 would train nothing"),
    ],
)
def test_what_clients_of_depths_cannot_train_is_one_line(tiny_dataset: str, settings: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=r"^depths = uniform:1:3: ") as error:
        check(experiment_of(tiny_dataset, **settings))
    assert line in str(error.value)


def test_clients_that_would_train_nothing_may_be_left_out(tiny_dataset: str) -> None:
    adapters = {"lora-rank": 2, "lora-layers": "stages.2.*", "least-depth": 3, "clients-per-round": 1}
    check(experiment_of(tiny_dataset, **adapters))
