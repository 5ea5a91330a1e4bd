"""Invariants of every round of a small federation of the project's own clients, for any settings."""

import pytest
import torch
from flwr.app import MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsparse.catalogue import TOPOLOGIES
from fedsparse.compression import PayloadError
from fedsparse.config import Config
from fedsparse.engine.step_records import read_steps, step_record
from fedsparse.experiment import Experiment
from fedsparse.sparsity.densities import DISTRIBUTIONS, budget
from fedsparse.strategies.round_tally import Measures
from fedsparse.telemetry.step_log import StepEntry, StepLog
from fedsparse.telemetry.timers import StageTimer
from tests.strategies.federation import SETTINGS, STEPS, TRAFFIC, play

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


def test_the_step_log_tells_every_client_s_steps_and_changes_no_bit(tiny_dataset: str) -> None:
    settings = {"batch-size": 8, "eval-clients": False, "epochs": 2}
    silent = play(tiny_dataset, rounds=2, **settings)
    played = play(tiny_dataset, rounds=2, **settings, **{"log-interval": 3})
    assert torch.equal(silent[-1].weights, played[-1].weights)
    for _, reply in TRAFFIC:
        entries, taken = read_steps(reply.content)
        assert taken == 2 * -(-reply.content["metrics"]["num-examples"] // 8)
        assert [entry.step for entry in entries] == list(range(3, taken + 1, 3))
    assert STEPS[-1] == {reply.metadata.src_node_id: read_steps(reply.content) for _, reply in TRAFFIC[4:]}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"loss": [float("nan")]}, "a wrong entry"),
        ({"step": [3]}, "a wrong entry"),
        ({"loss": [1.0, 1.0]}, "one length"),
        ({name: [1.0] * 1001 for name in StepEntry._fields}, "one length"),
        ({"loss": 1.0}, "one length"),
        ({"taken": -1}, "-1 steps"),
        ({"more": 1}, "other columns"),
    ],
)
def test_a_faulty_step_log_is_refused_in_one_line(fault: dict, said: str) -> None:
    log, entries = StepLog(1, StageTimer(), lambda entry: entries.append(entry)), []
    for step in (1, 2):
        log.count(torch.tensor(float(step)), step)
    record = step_record(log, entries[:1])
    assert read_steps(RecordDict({"steps": record})).entries == entries[:1]
    with pytest.raises(PayloadError, match=said):
        read_steps(RecordDict({"steps": MetricRecord({**record, **fault})}))


def test_a_long_step_log_travels_thinned() -> None:
    log = StepLog(1, StageTimer(), print)
    log.step = 2500
    record = step_record(log, [StepEntry(step, 1.0, 1.0, 1.0, 1.0, 1.0) for step in range(1, 2501)])
    assert [entry.step for entry in read_steps(RecordDict({"steps": record})).entries] == list(range(1, 2501, 3))


def test_the_threshold_error_and_the_transfer_of_the_simulated_network_are_measured(tiny_dataset: str) -> None:
    settings = {"compressor": "gaussian", "uplink-mbps": "8", "latency-ms": "500", "eval-clients": False}
    _, round = play(tiny_dataset, rounds=1, **settings)
    errors = [reply.content["metrics"]["compress/threshold_error"] for _, reply in TRAFFIC]
    assert round.metrics["compress/threshold_error"] == pytest.approx(sum(errors) / 4)
    assert min(errors) > 0
    sent = round.metrics["comm/uplink_bytes"]
    assert round.metrics["time/transfer"] == pytest.approx(4 * 1.0 + sent * 8 / 8e6)
    _, round = play(tiny_dataset, rounds=1, compressor="none", **{"eval-clients": False})
    assert not {"compress/threshold_error", "time/transfer"} & set(round.metrics)
