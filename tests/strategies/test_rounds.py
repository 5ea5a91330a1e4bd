"""Invariants of every round of a small federation of the project's own clients, for any settings."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.config import Config
from fedsparse.experiment import Experiment
from fedsparse.sparsity.densities import DISTRIBUTIONS, budget
from strategies.replies import Measures
from tests.strategies.federation import SETTINGS, TRAFFIC, play

FIXED_COUNTS = ("static", "set", "rigl", "feddst")
FIXED_TOTAL = (*FIXED_COUNTS, "ssfl", "prunefl")


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from([m for m in TOPOLOGIES if m != "small-dense"]),
    model=st.sampled_from(["mlp-small", "cnn-small", "lenet5"]),
    distribution=st.sampled_from([*DISTRIBUTIONS]),
    sparsity=st.floats(0.01, 0.99),
    ratio=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_counts_are_exact_and_missing_weights_are_zero_for_any_model_and_sparsity(tiny_dataset: str, **drawn) -> None:
    rounds = play(
        tiny_dataset,
        rounds=3,
        topology=drawn["method"],
        model=drawn["model"],
        sparsity=drawn["sparsity"],
        seed=drawn["seed"],
        **{"sparsity-distribution": drawn["distribution"], "readjustment-ratio": drawn["ratio"], "dense-layers": ""},
    )
    first = rounds[0].topology
    for _, weights, topology, metrics, _ in rounds:
        assert weights.isfinite().all()
        assert not weights[: topology.mask.numel()][~topology.mask].any()
        assert topology.mask[~topology.prunable].all()
        assert metrics["topology/density"] == topology.density
        if drawn["method"] in FIXED_COUNTS:
            assert topology.counts == DISTRIBUTIONS[drawn["distribution"]](topology.layers, drawn["sparsity"])
        if drawn["method"] in FIXED_TOTAL:
            assert sum(topology.counts) == budget(topology.layers, drawn["sparsity"])
        if drawn["ratio"] == 0 and drawn["method"] in (*FIXED_COUNTS, "prunefl"):
            assert topology is first


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_client_weighs_as_much_as_it_has_samples_and_not_batches(tiny_dataset: str, epochs: int) -> None:
    play(tiny_dataset, rounds=1, epochs=epochs, **{"eval-clients": False, "batch-size": 7})
    config = Config.from_mapping(SETTINGS)
    samples = Experiment(config.replace(dataset=tiny_dataset)).partition
    assert len({len(indices) for indices in samples}) > 1
    for message, reply in TRAFFIC:
        assert reply.content["metrics"]["num-examples"] == len(samples[message.metadata.dst_node_id])


def test_downlink_of_an_evaluation_is_added_to_the_downlink_of_the_training(tiny_dataset: str) -> None:
    static = {"topology": "static", "compressor": "none"}
    without, evaluated = (play(tiny_dataset, rounds=4, **static, **{"eval-clients": asked}) for asked in (False, True))
    weights = len(TRAFFIC[0][0].content["arrays"]["weights"].data)
    bytes = [[round.metrics["comm/downlink_bytes"] for round in rounds[1:]] for rounds in (without, evaluated)]
    more = [b - a for a, b in zip(*bytes, strict=True)]
    assert more == [0, 4 * weights, 0, 4 * weights]


def test_clients_that_answered_are_sent_changes_and_the_next_round_costs_less_than_the_whole_weights(
    tiny_dataset: str,
) -> None:
    settings = {"downlink-compressor": "topk", "downlink-density": 0.01, "clients": 4, "eval-clients": False}
    rounds = play(tiny_dataset, rounds=3, topology="dense", sparsity=0, **settings)
    whole = 4 * 4 * rounds[0].weights.numel()
    downlink = [round.metrics["comm/downlink_bytes"] for round in rounds[1:]]
    assert downlink[0] >= whole
    assert max(downlink[1:]) < whole / 10


def test_steps_that_overflowed_in_float16_are_added_up_over_the_cohort(tiny_dataset: str) -> None:
    _, round = play(tiny_dataset, rounds=1, amp="fp16", **{"eval-clients": False})
    told = [reply.content["metrics"]["amp/skipped_steps"] for _, reply in TRAFFIC]
    assert round.metrics["amp/skipped_steps"] == sum(told) == 0
    measures = Measures()
    for samples, skipped in ((3, 2.0), (5, 1.0)):
        measures.add({"amp/skipped_steps": skipped}, samples)
    assert measures.means(8)["amp/skipped_steps"] == 3
