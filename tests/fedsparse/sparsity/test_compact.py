"""Sparse models as short vectors: the payloads and the client's state under a topology."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.catalogue import COMPRESSORS, VALUES
from fedsparse.compression import ClientState, PayloadError, UpdateCodec, decode
from fedsparse.config.presets import FACTORIZATIONS, FINE_VALUES
from fedsparse.sparsity import Topology, weight_layers
from fedsparse.sparsity.compact import Compact, move_state
from fedsparse.sparsity.densities import erk
from fedsparse.vector import Layout
from tests.fedsparse.sparsity.architectures import QUICK, architectures, generator, small_cnn

MODEL = small_cnn()
LAYOUT = Layout.of(MODEL)
LAYERS = weight_layers(MODEL, LAYOUT, [])


def topology(sparsity: float, seed: int = 0, layout: Layout = LAYOUT, layers=LAYERS) -> Topology:
    return Topology.random(layers, layout.parameters, erk(layers, sparsity), generator(seed))


def vector(layout: Layout = LAYOUT, seed: int = 0) -> torch.Tensor:
    return torch.randn(layout.size, generator=generator(seed))


@QUICK
@given(architectures(), st.floats(0, 1))
def test_a_sparse_model_survives_the_short_vector_and_its_payload(model, sparsity):
    layout = Layout.of(model)
    layers = weight_layers(model, layout, [])
    sparse = topology(sparsity, layout=layout, layers=layers)
    compact = Compact(layout, sparse)
    weights = sparse.apply_(vector(layout))
    payload, _ = UpdateCodec(compact.layout, "none").encode(compact.gather(weights), ClientState(), round=3, seed=0)
    assert np.array_equal(compact.scatter(decode(payload, compact.layout)).to_dense(), weights.numpy())
    assert len(payload) <= 4 * (int(sparse.mask.sum()) + layout.size - layout.parameters) + 64


def test_when_every_weight_exists_the_short_vector_is_the_flat_vector():
    compact = Compact(LAYOUT, Topology.full(LAYERS, LAYOUT.parameters))
    flat = vector()
    assert compact.layout is LAYOUT
    assert compact.gather(flat) is flat


def test_a_payload_for_another_topology_is_refused():
    mine, other = (Compact(LAYOUT, topology(0.5, seed)) for seed in (0, 1))
    payload, _ = UpdateCodec(mine.layout, "none").encode(mine.gather(vector()), ClientState(), round=1, seed=0)
    assert mine.layout.size == other.layout.size
    with pytest.raises(PayloadError, match="layout"):
        decode(payload, other.layout)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(
    ("compressor", "values"),
    [(c, v) for c in COMPRESSORS for v in VALUES if c not in FACTORIZATIONS or v in FINE_VALUES],
)
def test_decoded_updates_and_the_residual_add_up_to_the_updates_on_the_mask(compressor, values, scope):
    sparse = topology(0.7)
    compact = Compact(LAYOUT, sparse)
    codec = UpdateCodec(compact.layout, compressor, density=0.1, values=values, scope=scope)
    state, sent, wanted = ClientState(), torch.zeros(LAYOUT.size), torch.zeros(LAYOUT.size)
    for round in (1, 2, 3):
        update = vector(seed=round)
        wanted += sparse.apply_(update.clone())
        codec.settle(state, round - 1)
        payload, _ = codec.encode(compact.gather(update), state, round=round, seed=round)
        decoded = compact.scatter(decode(payload, compact.layout))
        assert not decoded.to_dense()[: LAYOUT.parameters][~sparse.mask.numpy()].any()
        decoded.add_to(sent)
    if compressor != "dgc":  # because dgc sends momentum, not the sum of the updates
        left = np.zeros(LAYOUT.parameters, np.float32)
        left[compact.active] = 0 if state.residual is None else state.residual
        np.testing.assert_allclose(sent[: LAYOUT.parameters].numpy() + left, wanted[: LAYOUT.parameters], atol=1e-4)


def test_when_the_topology_changes_residuals_of_removed_weights_are_dropped_and_the_rest_is_kept():
    old, new = (Compact(LAYOUT, topology(0.5, seed)) for seed in (0, 1))
    residual = np.arange(1, old.layout.parameters + 1, dtype=np.float32)
    state = ClientState(residual.copy(), {"momentum": residual * 2, "thresholds": np.ones(1, np.float32)})
    move_state(state, old, new)
    before = dict(zip(old.active.tolist(), residual.tolist(), strict=True))
    expected = [before.get(position, 0.0) for position in new.active.tolist()]
    assert state.residual.tolist() == expected
    assert state.memory["momentum"].tolist() == [2 * value for value in expected]
    assert state.memory["thresholds"].tolist() == [1]


def test_a_lost_payload_returns_to_the_residual_before_the_topology_changes():
    old, new = (Compact(LAYOUT, topology(0.5, seed)) for seed in (0, 1))
    codec, state, update = UpdateCodec(old.layout, "topk", density=0.2), ClientState(), vector()
    codec.encode(old.gather(update), state, round=1, seed=0)
    with pytest.raises(ValueError, match="not settled"):
        move_state(state, old, new)
    codec.settle(state, None)
    move_state(state, old, new)
    both = old.topology.mask & new.topology.mask
    expected = torch.where(both, update[: LAYOUT.parameters], 0.0)[new.topology.mask]
    np.testing.assert_allclose(state.residual, expected, rtol=1e-6)
