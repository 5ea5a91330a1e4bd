"""Attacks for experiments: who is hostile, what the attackers send, and that no deployment can have any."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from fedsparse.clients.client_app import with_flipped_labels
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.strategies.attack import STRENGTH, Z
from fedsparse.strategies.server_app import federate
from fedsparse.telemetry.header import header
from tests.strategies.federation import binding_of
from tests.strategies.test_fedavg import LAYOUT, P, make, reply, updates
from tests.strategies.test_nodes import Federation


def attacked(attack: str) -> np.ndarray:
    """What three clients send in the first round after the attack, by which client 1 is hostile."""
    strategy, grid = make(attack=attack, attackers=0.34, compressor="none")
    strategy.attack.attackers = {1}
    messages = list(strategy.configure_train(1, strategy.broadcast(1), ConfigRecord(), grid))
    answers = strategy.cohort.answers([reply(m, updates(1)[i], 1, 1) for i, m in enumerate(messages)])
    strategy.attack.poison(answers, 1)
    payloads = [answer.content["arrays"]["update"].data for _, answer in answers]
    pairs = zip(payloads, messages, strict=True)
    return np.stack([decode(payload, LAYOUT, binding_of(message)).to_dense() for payload, message in pairs])


@pytest.mark.parametrize("attack", ["sign-flip", "scale", "noise", "alie", "index-poison"])
def test_only_the_attackers_weights_are_replaced_as_the_attack_says(attack: str) -> None:
    sent = attacked(attack)
    u, length = updates(1), np.linalg.norm(updates(1)[1, :P])
    np.testing.assert_array_equal(sent[[0, 2]], u[[0, 2]])
    np.testing.assert_array_equal(sent[1, P:], u[1, P:])
    honest = u[[0, 2], :P]
    match attack:
        case "sign-flip":
            np.testing.assert_allclose(sent[1, :P], -u[1, :P])
        case "scale":
            np.testing.assert_allclose(sent[1, :P], -STRENGTH * u[1, :P], rtol=1e-6)
        case "alie":
            np.testing.assert_allclose(sent[1, :P], honest.mean(0) - Z * honest.std(0), rtol=1e-5, atol=1e-6)
        case _:
            assert np.linalg.norm(sent[1, :P]) == pytest.approx(STRENGTH * length, rel=1e-5)
            assert np.count_nonzero(sent[1, :P]) == (P if attack == "noise" else 1)


def test_the_share_of_hostile_clients_is_drawn_once_from_the_seed() -> None:
    def drawn(seed: int) -> set[int]:
        settings = {"attack": "scale", "attackers": 0.2, "seed": seed, "clients": 50}
        return Experiment(Config.from_mapping(settings)).attackers

    assert len(drawn(0)) == 10
    assert drawn(0) == drawn(0) != drawn(1)
    assert Experiment(Config()).attackers == set()


def test_flipped_labels_are_the_classes_counted_from_the_end() -> None:
    fetch = with_flipped_labels(lambda at: (at.float(), at), 10)
    inputs, labels = fetch(torch.tensor([0, 4, 9]))
    assert inputs.tolist() == [0, 4, 9]
    assert labels.tolist() == [9, 5, 0]


def test_an_attack_is_refused_on_flowers_runtime_and_in_a_deployment() -> None:
    with pytest.raises(ConfigError, match="attack = scale is for experiments with engine = local, not flower"):
        Config.from_mapping({"attack": "scale", "engine": "flower"})
    config = Config.from_mapping({"attack": "scale", "clients": 2, "clients-per-round": 1})
    with pytest.raises(ConfigError, match="never for a deployment"):
        federate(Federation({50: 0, 60: 1}), config)


def test_the_header_of_an_attacked_run_says_so() -> None:
    told = header(Config.from_mapping({"attack": "alie", "attackers": 0.3, "aggregator": "median"}))
    assert told.endswith("median; ATTACK: 30% of the clients are hostile (alie)")
    assert "ATTACK" not in header(Config())
