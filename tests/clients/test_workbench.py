"""The workbench that the clients of a thread share."""

import numpy as np
import pytest

from fedsparse.clients.workbench import Workbench, workbench
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.quantisation import few_bits_layers
from tests.strategies.federation import TRAFFIC, play


@pytest.mark.parametrize("evaluated", [True, False])
def test_held_out_samples_are_never_trained_on_and_none_is_lost(evaluated: bool) -> None:
    bench = Workbench(Config(eval_clients=evaluated, distribution="dirichlet"))
    all_held_out = set[int]()
    for client in range(20):
        trained, held_out = (set(indices.tolist()) for indices in bench.samples(client))
        assert not trained & held_out
        assert trained | held_out == set(np.asarray(bench.partition[client]).tolist())
        all_held_out |= held_out
    assert bool(all_held_out) == evaluated


def test_a_client_reads_the_weights_in_place_and_keeps_no_gradient_after_training(tiny_dataset: str) -> None:
    play(tiny_dataset, rounds=1, topology="dense", sparsity=0)
    sent = [message.content["arrays"]["weights"].data for message, _ in TRAFFIC]
    bench = workbench(tuple(TRAFFIC[-1][0].content["config"].items()))
    assert np.shares_memory(np.frombuffer(sent[-1], np.uint8), bench.received.numpy())
    assert all(p.grad is None for p in bench.model.module.parameters())


def test_clients_train_from_weights_that_lie_between_the_levels_and_compute_with_the_levels(tiny_dataset: str) -> None:
    play(tiny_dataset, rounds=1, topology="dense", sparsity=0, weight_bits="4")
    arrays, config = (TRAFFIC[-1][0].content[name] for name in ("arrays", "config"))
    bench = workbench(tuple(config.items()))
    sent = decode(arrays["weights"].data, bench.layout).as_dense()
    bench.receive(arrays["weights"].data, bench.under_bits(b"").compact)
    moved = {e.name for e in bench.layout.entries if (bench.received.numpy() != sent)[e.slice].any()}
    quantised = few_bits_layers(bench.model.module)
    assert moved == set(quantised) != set()
    for entry in bench.layout.trainable:
        if entry.name in quantised:
            weight, quantiser = quantised[entry.name]
            np.testing.assert_allclose(quantiser(weight).detach().flatten(), sent[entry.slice], rtol=1e-5)
