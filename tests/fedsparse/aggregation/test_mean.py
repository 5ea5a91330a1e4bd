from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedsparse.aggregation.mean import Mean
from fedsparse.compression import SparseUpdate
from fedsparse.compression.sparse_update import Segment
from fedsparse.sparsity import Topology
from fedsparse.vector import Entry, Layout
from tests.fedsparse.sparsity.architectures import QUICK, generator, layers_of

SIZE = 6
BUFFERS = 2
LAYOUT = Layout((Entry("weights", (SIZE,), 0, SIZE), Entry("buffers", (BUFFERS,), SIZE, BUFFERS)), SIZE, SIZE + BUFFERS)
CLIENT = st.tuples(
    st.lists(st.floats(-10, 10, width=32), min_size=SIZE + BUFFERS, max_size=SIZE + BUFFERS),
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
    st.integers(1, 1000),
)


def topology(mask: list[bool]) -> Topology:
    layers, _ = layers_of(nn.Linear(SIZE, 1, bias=False), [])
    return Topology(layers, torch.tensor(mask))


ALL = topology([True] * SIZE)


def update_of(weights: Tensor, old: Tensor, mask: list[bool]) -> SparseUpdate:
    """The update of a client that holds ``mask`` and the buffers."""
    kept = np.array([*mask, *[True] * BUFFERS])
    values = (torch.as_tensor(weights, dtype=torch.float32) - old).numpy()[kept]
    return SparseUpdate(LAYOUT, 1, (Segment(0, SIZE + BUFFERS, np.flatnonzero(kept), values),))


def mean(clients, old: Tensor, final: Topology = ALL) -> Tensor:
    updates = Mean(SIZE + BUFFERS, ALL.mask)
    for weights, mask, samples in clients:
        mask = [bool(held) for held in mask]
        updates.add(update_of(weights, old, mask), samples, None if all(mask) else torch.tensor(mask))
    return final.apply_(old + updates.result())


@QUICK
@given(st.lists(CLIENT, min_size=1, max_size=5), st.lists(st.booleans(), min_size=SIZE, max_size=SIZE))
def test_the_masked_mean_equals_a_loop_over_weights_and_their_holders(clients, final):
    old = torch.randn(SIZE + BUFFERS, generator=generator())
    got = mean(clients, old, topology(final))
    held = defaultdict(list)
    for weights, mask, samples in clients:
        for i, weight in enumerate(weights):
            if i >= SIZE or mask[i]:
                held[i].append((samples, weight))
    for i in range(SIZE + BUFFERS):
        value = sum(n * w for n, w in held[i]) / sum(n for n, _ in held[i]) if held[i] else float(old[i])
        expected = value if i >= SIZE or final[i] else 0.0
        assert float(got[i]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_two_clients_with_disjoint_masks_are_copied_and_not_halved():
    half = [True] * 3 + [False] * 3
    a, b = torch.arange(8.0), 10 * torch.arange(8.0)
    got = mean([(a, half, 5), (b, [not held for held in half], 50)], torch.zeros(8))
    assert got[:SIZE].tolist() == [0, 1, 2, 30, 40, 50]


def test_a_weight_that_no_client_holds_keeps_its_value_and_a_missing_weight_is_zero():
    final = topology([True, True, False, True, True, True])
    got = mean([(torch.ones(8), [True, False, False, True, True, True], 3)], torch.full((8,), 7.0), final)
    assert got.tolist() == [1, 7, 0, 1, 1, 1, 1, 1]


def test_unequal_sample_counts_change_the_average():
    everything = [True] * SIZE
    got = mean([(torch.zeros(8), everything, 1), (torch.ones(8), everything, 3)], torch.zeros(8))
    assert got.tolist() == [0.75] * 8


def test_the_order_of_clients_does_not_change_the_average():
    clients = [
        (torch.randn(8, generator=generator(i)), torch.rand(6, generator=generator(i)) < 0.7, i + 1) for i in range(9)
    ]
    assert torch.equal(mean(clients, torch.zeros(8)), mean(clients[::-1], torch.zeros(8)))


def test_sparsity_zero_equals_fedavg():
    clients = [(torch.randn(8, generator=generator(i)), [True] * SIZE, 10 * i + 1) for i in range(5)]
    total = sum(samples for *_, samples in clients)
    fedavg = sum(weights * samples for weights, _, samples in clients) / total
    assert torch.equal(mean(clients, torch.zeros(8)), fedavg)


@pytest.mark.parametrize("held", [True, False])
def test_masks_all_one_and_all_zero_average_or_keep_everything(held):
    got = mean([(torch.ones(8), [held] * SIZE, 2)], torch.zeros(8))
    assert got.tolist() == [float(held)] * SIZE + [1.0, 1.0]


def test_votes_are_the_sums_of_the_clients_weights_over_the_clients_that_hold_them():
    old, everything = torch.full((8,), 2.0), [True] * SIZE
    updates = Mean(SIZE + BUFFERS, ALL.mask)
    half = [True] * 3 + [False] * 3
    updates.add(update_of(torch.full((8,), 5.0), old, everything), 10)
    updates.add(update_of(torch.full((8,), 7.0), old, half), 1, torch.tensor(half))
    total, held = updates.votes(old)
    assert held.tolist() == [11, 11, 11, 10, 10, 10]
    assert total.tolist() == [57, 57, 57, 50, 50, 50]


def test_a_client_without_samples_is_refused():
    with pytest.raises(ValueError, match="0 samples"):
        mean([(torch.ones(8), [True] * SIZE, 0)], torch.zeros(8))
