"""Rounds of a differentially private run, over real payloads."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from torch import nn

from fedsparse.clients.perturb import perturbed
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.shared_support import shared_support
from fedsparse.compression.wire import bind
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.engine.records import payload_array
from fedsparse.errors import ConfigError
from fedsparse.privacy.client_level import ClientLevel
from fedsparse.privacy.noise import gaussian, repeatable_bits
from fedsparse.sampling import sampled
from fedsparse.seeds import derive_seed
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.server_topology import ServerTopology
from tests.strategies.federation import TRAFFIC, binding_of, experiment_of
from tests.strategies.federation import play as play_all

MODEL = nn.Sequential(nn.Linear(10, 40), nn.Linear(40, 40), nn.Linear(40, 5))
CLIENTS, COHORT, CLIP = 6, 2, 0.5


SETTINGS = {"clients": CLIENTS, "clients-per-round": COHORT, "compressor": "none"}
SETTINGS |= {"dp-noise": 1.5, "dp-clip": CLIP, "dp-delta": 1e-5}


def make(**settings: object) -> FedAvg:
    experiment = experiment_of(Config.from_mapping(SETTINGS | settings), MODEL)
    size = experiment.layout.size
    return FedAvg(ServerModel(experiment, ServerTopology.of_round_1(experiment), torch.zeros(size)), range(CLIENTS))


class Deployed:
    """A grid that is no simulation."""

    def get_node_ids(self) -> Iterable[int]:
        return range(CLIENTS)


LOCAL = LocalGrid("tests.fedsparse.engine.obedient:app", clients=CLIENTS)


def update_of(client: int, size: int) -> np.ndarray:
    """Those of even clients are longer than the clip, those of odd ones are shorter."""
    drawn = np.random.default_rng(client).standard_normal(size)
    return ((0.1 if client % 2 else 3.0) * drawn / np.linalg.norm(drawn)).astype(np.float32)


def reply(strategy: FedAvg, message: Message, round: int) -> Message:
    layout, client = strategy.model.topology.compact.layout, message.metadata.dst_node_id
    codec = UpdateCodec(layout, **strategy.config.compression())
    update, support = update_of(client, layout.size), strategy.config.support_seed(round)
    payload, _ = codec.encode(update, ClientState(), round=round, seed=client, support=support)
    arrays = ArrayRecord({"update": payload_array(bind(payload, binding_of(message)), layout)})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 9})}), reply_to=message)


def play(
    strategy: FedAvg, round: int = 1, grid: object = LOCAL,
    answer: Callable[[FedAvg, Message, int], Message] = reply,
) -> list[int]:  # fmt: skip
    """Play a round; returns who was asked."""
    messages = list(strategy.configure_train(round, strategy.broadcast(round), ConfigRecord(), grid))
    strategy.aggregate_train(round, [answer(strategy, message, round) for message in messages])
    return [message.metadata.dst_node_id for message in messages]


def noise_of(strategy: FedAvg, round: int, count: int) -> np.ndarray:
    config = strategy.config
    return 1.5 * CLIP * gaussian(count, repeatable_bits(derive_seed(config.seed, "noise", round=round)))


def rounds_of(size: int, config: Config) -> int:
    """The first round with a cohort of this size."""
    return next(round for round in range(1, 1000) if len(sampled(config, round)) == size)


def test_a_round_releases_the_cut_updates_and_the_noise_over_the_expected_cohort() -> None:
    strategy = make()
    round, size = rounds_of(3, strategy.config), strategy.model.layout.size
    asked = play(strategy, round)
    updates = [update_of(client, size).astype(np.float64) for client in asked]
    total = sum(update * min(1, CLIP / np.linalg.norm(update)) for update in updates)
    expected = (total + noise_of(strategy, round, size)) / COHORT
    np.testing.assert_allclose(strategy.model.weights.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert strategy.cohort.tally.metrics["privacy/clipped"] == sum(client % 2 == 0 for client in asked) / 3
    assert strategy.cohort.tally.metrics["privacy/epsilon"] > 0


def test_a_round_without_any_client_is_noise_alone() -> None:
    strategy = make()
    round = rounds_of(0, strategy.config)
    assert play(strategy, round) == []
    expected = noise_of(strategy, round, strategy.model.layout.size) / COHORT
    np.testing.assert_allclose(strategy.model.weights.numpy(), expected, rtol=1e-6)


def test_clients_that_fail_are_a_shorter_sum_and_no_second_cohort_is_asked() -> None:
    strategy = make()
    round = rounds_of(2, strategy.config)
    asked = play(strategy, round, answer=lambda s, m, r: Message(Error(2, "broken"), reply_to=m))
    assert strategy.cohort.tally.metrics["comm/messages"] == len(asked) == 2
    expected = noise_of(strategy, round, strategy.model.layout.size) / COHORT
    np.testing.assert_allclose(strategy.model.weights.numpy(), expected, rtol=1e-6)


def test_no_limit_compares_clients() -> None:
    strategy = make()
    for round in range(1, 20):
        scale = 1e6 if round == 19 else 1.0

        def answer(s: FedAvg, m: Message, r: int, scale: float = scale) -> Message:
            layout = s.model.layout
            update = update_of(m.metadata.dst_node_id, layout.size) * np.float32(scale)
            payload, _ = UpdateCodec(layout, "none").encode(update, ClientState(), round=r, seed=0)
            arrays = ArrayRecord({"update": payload_array(bind(payload, binding_of(m)), layout)})
            return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 9})}), reply_to=m)

        play(strategy, round, answer=answer)
        assert strategy.cohort.tally.failures == []


def test_noise_stands_on_the_coordinates_that_the_clients_share_alone() -> None:
    strategy = make(
        **{"compressor": "randomk", "density": 0.2, "shared-support": True, "error-feedback": False, "values": "f32"}
    )
    round = rounds_of(0, strategy.config)
    play(strategy, round)
    codec = UpdateCodec(strategy.model.layout, **strategy.config.compression())
    support = shared_support(codec, round, strategy.config.support_seed(round))
    assert np.array_equal(strategy.model.weights.numpy().nonzero()[0], support)
    expected = noise_of(strategy, round, len(support)) / COHORT
    np.testing.assert_allclose(strategy.model.weights.numpy()[support], expected, rtol=1e-6)
    before = strategy.model.weights.clone()
    later = next(r for r in range(round + 1, 1000) if len(sampled(strategy.config, r)) == 3)
    play(strategy, later)
    moved = (strategy.model.weights != before).numpy().nonzero()[0]
    assert np.array_equal(moved, shared_support(codec, later, strategy.config.support_seed(later)))


def test_shared_coordinates_and_a_static_topology_go_together() -> None:
    strategy = make(compressor="randomk", density=0.2, sparsity=0.5, **{"shared-support": True})
    exist = strategy.model.topology.current.mask
    for round in range(1, 6):
        play(strategy, round)
    assert strategy.model.weights[exist].count_nonzero() > 0.2 * exist.count_nonzero()
    assert not strategy.model.weights[~exist].any()


def test_each_client_is_drawn_independently_with_the_same_probability() -> None:
    config = Config.from_mapping({"clients": 30, "clients-per-round": 6, "dp-noise": 1})
    drawn = np.zeros((3000, 30), bool)
    for round in range(3000):
        drawn[round, sampled(config, round)] = True
    assert np.abs(drawn.mean(axis=0) - 0.2).max() < 4.5 * np.sqrt(0.16 / 3000)
    assert drawn.sum(axis=1).var() == pytest.approx(30 * 0.16, rel=0.15)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(30)).max() < 5.5 / np.sqrt(3000)
    assert len(sampled(config.replace(**{"dp-noise": "off"}), 1)) == 6


def test_in_a_deployment_neither_noise_nor_cohort_follow_from_the_seed_that_clients_know() -> None:
    weights, cohorts = [], []
    for grid in (LOCAL, LOCAL, Deployed(), Deployed()):
        strategy = make()
        cohorts.append([play(strategy, round, grid) for round in range(1, 9)])
        weights.append(strategy.model.weights)
    assert torch.equal(weights[0], weights[1])
    assert cohorts[0] == cohorts[1]
    independent = (2 * 8) ** 0.5 * 1.5 * CLIP / COHORT  # deviation of the difference of two sums of eight rounds' noise
    for first, second in ((0, 2), (2, 3)):
        assert (weights[first] - weights[second]).std() > 0.94 * independent
        assert cohorts[first] != cohorts[second]


CLIENTS_NOISE = {"dp-noise-by": "clients", "compressor": "randomk", "shared-support": True, "density": 0.5}
CLIENTS_NOISE |= {"error-feedback": False, "values": "f32", "min-replies": 2}


def test_clients_cut_what_they_send_and_add_their_share_of_the_noise() -> None:
    config = Config.from_mapping({"dp-noise": 4, "dp-clip": CLIP, **CLIENTS_NOISE, "min-replies": 4})
    layout = experiment_of(config, MODEL).layout
    codec = UpdateCodec(layout, **config.compression())
    support = shared_support(codec, 1, config.support_seed(1))
    update = torch.from_numpy(update_of(0, layout.size))
    sent = np.stack([perturbed(update, codec, config, 1, noise=4.0).numpy() for _ in range(400)])
    rest = np.setdiff1d(np.arange(layout.size), support)
    assert not sent[:, rest].any()
    cut = update.numpy()[support] * CLIP / np.linalg.norm(update.numpy()[support])
    noise = sent[:, support] - cut
    assert noise.std() == pytest.approx(4 * CLIP / np.sqrt(4), rel=5 / np.sqrt(2 * noise.size))
    assert np.abs(noise.mean(axis=0)).max() < 5.5 * noise.std() / np.sqrt(400)


def test_with_noise_by_clients_a_round_with_too_few_replies_leaves_the_weights() -> None:
    strategy = make(**CLIENTS_NOISE)
    first = []

    def answer(s: FedAvg, m: Message, r: int) -> Message:
        first.append(m)
        return reply(s, m, r) if len(first) > 1 else Message(Error(2, "broken"), reply_to=m)

    play(strategy, 1, answer=answer)
    assert not strategy.model.weights.any()
    assert strategy.cohort.tally.metrics["comm/messages"] == COHORT
    asked = play(strategy, 2)
    support = shared_support(
        UpdateCodec(strategy.model.layout, **strategy.config.compression()), 2, strategy.config.support_seed(2)
    )
    mean = sum(update_of(client, strategy.model.layout.size)[support] for client in asked) / COHORT
    np.testing.assert_allclose(strategy.model.weights.numpy()[support], mean, rtol=1e-5)


def test_with_noise_by_clients_a_reply_is_cut_to_what_an_honest_one_may_be_long() -> None:
    def answer(strategy: FedAvg, message: Message, round: int) -> Message:
        layout, hostile = strategy.model.topology.compact.layout, message.metadata.dst_node_id == asked[0]
        codec = UpdateCodec(layout, **strategy.config.compression())
        vector = torch.full((layout.size,), 1e38) if hostile else torch.zeros(layout.size)
        honest = perturbed(vector, codec, strategy.config, round, noise=1.5)
        payload, _ = codec.encode(vector if hostile else honest, ClientState(), round=round, seed=1)
        told.append(float(honest.norm()))
        arrays = ArrayRecord({"update": payload_array(bind(payload, binding_of(message)), layout)})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 9})}), reply_to=message)

    told: list[float] = []
    strategy = make(**{"dp-noise-by": "clients"})
    asked = sampled(strategy.config, 1)
    play(strategy, answer=answer)
    assert max(told) < COHORT * float(strategy.model.weights.norm()) < 4 * max(told)


def test_clients_are_told_the_noise_that_an_epsilon_needs(tiny_dataset: str) -> None:
    settings = {"dp-epsilon": 3, "topology": "dense", "sparsity": 0, **CLIENTS_NOISE, "dp-clip": 1e-3}
    rounds = play_all(tiny_dataset, rounds=1, **settings)
    noise = {message.content["task"]["dp-noise"] for message, _ in TRAFFIC}
    (told,) = noise
    moved = (rounds[1].weights - rounds[0].weights).numpy()
    moved = moved[moved != 0] * 4 / 1e-3  # four replies, each with a half of the variance
    assert moved.std() == pytest.approx(told * np.sqrt(2), rel=0.05)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"dp-epsilon": 8}, "dp-epsilon = 8: decides the noise; leave dp-noise out"),
        ({"aggregator": "median"}, "aggregator = median: compares clients"),
        ({"attack": "alie"}, "attack = alie: its updates depend on those of all clients"),
        ({"min-replies": 2}, "min-replies = 2: with noise by the server, no round may depend on who replies"),
        ({"dp-noise-by": "clients", "compressor": "topk"}, "use compressor = none, or randomk with shared-support"),
        ({"dp-noise-by": "clients", "values": "int8"}, "one of plain values"),
        ({**CLIENTS_NOISE, "error-feedback": True}, "error-feedback = false"),
        ({"sparsity": 0.5, "topology": "rigl"}, "dp-epsilon: topology = rigl asks each client for more"),
        ({"sparsity": 0.5, "topology": "feddst"}, "dp-epsilon: topology = feddst asks each client for more"),
        ({"sparsity": 0.5, "topology": "ssfl"}, "dp-epsilon: topology = ssfl asks each client for more"),
        ({"upload-pruning": "magnitude"}, "upload-pruning = magnitude: clients would choose a topology by their data"),
        ({"dp-noise": "off", "dp-epsilon": 1e-9, "dp-delta": 1e-20}, "dp-epsilon = 1e-09: no noise keeps to it"),
        (
            {"clients": 1, "clients-per-round": 1, "dp-delta": "auto"},
            "dp-delta = auto: is clients^-1.1",
        ),
    ],
)
def test_what_the_guarantee_does_not_hold_for_is_refused_in_one_line(settings: dict[str, object], line: str) -> None:
    def begin() -> None:
        experiment = experiment_of(Config.from_mapping(SETTINGS | settings), MODEL)
        ClientLevel(experiment.config, experiment.layout, experiment.method)

    with pytest.raises(ConfigError) as refused:
        begin()
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_running_statistics_would_travel_without_noise_and_are_refused() -> None:
    config = Config.from_mapping({"dp-noise": 1})
    experiment = experiment_of(config, nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    with pytest.raises(ConfigError, match=r"dp-noise, dp-epsilon: .* \(1.running_mean\), .*; choose --norm"):
        ClientLevel(config, experiment.layout, experiment.method)


@pytest.mark.parametrize("topology", ["static", "set", "magnitude"])
def test_topologies_that_follow_from_released_weights_are_allowed(topology: str) -> None:
    strategy = make(**{"sparsity": 0.5, "topology": topology, "readjustment-interval": 1, "compressor": "topk"})
    for round in range(1, 6):
        play(strategy, round)
    assert not strategy.model.weights[~strategy.model.topology.current.mask].any()
