"""With ``shared-support``, all clients of a round send the same coordinates, each with values of its own."""

import numpy as np
import pytest

from fedsparse.compression import ClientState, SparseUpdate, UpdateCodec, decode
from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from tests.fedsparse.compression.common import draw_vector, layout_of
from tests.strategies.federation import TRAFFIC, binding_of, play

LAYOUT = layout_of(300, 1, 40, 200, buffers=(6, 6))
RANDOMK = {"compressor": "randomk", "shared-support": True, "topology": "dense", "sparsity": 0}


def sent(dataset: str, **settings: object) -> dict[int, list[SparseUpdate]]:
    """The decoded updates of two rounds."""
    play(dataset, rounds=2, **RANDOMK | settings)
    rounds: dict[int, list[SparseUpdate]] = {}
    for message, reply in TRAFFIC:
        layout = Experiment(Config.from_mapping(dict(message.content["config"]))).layout
        update = decode(reply.content["arrays"]["update"].data, layout, binding_of(message))
        rounds.setdefault(update.round, []).append(update)
    return rounds


@pytest.mark.parametrize("scope", ["global", "layer", "chunk"])
def test_the_clients_of_a_round_send_the_same_coordinates_and_those_of_another_round_others(
    tiny_dataset: str, scope: str
) -> None:
    rounds = sent(tiny_dataset, scope=scope)
    first, second = ([update.segments[0].indices for update in rounds[round]] for round in (1, 2))
    assert len(first) == len(second) == 4
    assert all(np.array_equal(first[0], other) for other in first)
    assert all(np.array_equal(second[0], other) for other in second)
    assert not np.array_equal(first[0], second[0])
    values = [update.segments[0].values for update in rounds[1]]
    assert not np.array_equal(values[0], values[1])


def test_clients_draw_different_coordinates_without_it(tiny_dataset: str) -> None:
    (first, second, *_) = sent(tiny_dataset, **{"shared-support": False})[1]
    assert not np.array_equal(first.segments[0].indices, second.segments[0].indices)


def test_each_client_rounds_values_by_its_own_seed() -> None:
    codec = UpdateCodec(LAYOUT, "randomk", 0.2, values="int4", error_feedback=False, unbiased=True)
    update = draw_vector("normal", LAYOUT.size, 1)

    def decoded(seed: int) -> SparseUpdate:
        payload, _ = codec.encode(update, ClientState(), round=1, seed=seed, support=5)
        return codec.decode(payload)

    one, other = decoded(1), decoded(2)
    assert np.array_equal(one.segments[0].indices, other.segments[0].indices)
    assert not np.array_equal(one.segments[0].values, other.segments[0].values)


def test_counts_that_depend_on_a_clients_update_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shared-support = True: layer-budget = energy .* choose proportional"):
        Config.from_mapping(RANDOMK | {"scope": "layer", "layer-budget": "energy"})
