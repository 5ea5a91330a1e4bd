import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.compression.client_state import ClientState
from fedsparse.compression.hggtopk import SAMPLE, HGGTopK, top_indices, top_indices_on_device
from fedsparse.compression.indices import draw
from fedsparse.compression.selection import Part
from fedsparse.compression.topk import TopK, largest

from .common import KINDS, draw_vector, top_by_sorting, vectors

share = st.floats(0.0, 1.0)


@given(vectors, share, st.floats(0, 3, width=32), st.booleans())
@settings(max_examples=300)
def test_hggtopk_finds_the_true_top_k_whatever_the_guide(vector, share, guide, with_residual):
    k = max(1, round(share * vector.size))
    residual = np.roll(vector, 1) if with_residual else None
    out = vector if residual is None else np.empty_like(vector)
    expected = vector if residual is None else vector + residual
    indices, threshold = top_indices(vector, residual, out, k, guide)
    assert indices.dtype == np.int64
    assert np.array_equal(indices, top_by_sorting(expected, k))
    assert (np.abs(expected[indices]) >= threshold).all()
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [SAMPLE + 1, 3 * SAMPLE, 10 * SAMPLE + 7])
def test_hggtopk_finds_the_true_top_k_when_it_only_sees_a_sample(kind, n):
    vector = draw_vector(kind, n, n)
    for k in (1, 7, n // 100, n // 3, n - 1, n):
        indices, _ = top_indices(vector, None, vector, k)
        assert np.array_equal(indices, top_by_sorting(vector, k)), k


@pytest.mark.parametrize("sampled", [0.0, 1e6])
def test_a_sample_that_misleads_costs_time_but_not_the_result(sampled):
    n = 8 * SAMPLE
    vector = draw_vector("normal", n, 3)
    vector[:: max(1, n // SAMPLE) | 1] = sampled  # what the sample sees has nothing to do with the rest
    for k in (1, n // 100, n // 2):
        indices, _ = top_indices(vector, None, vector, k)
        assert np.array_equal(indices, top_by_sorting(vector, k))


def test_hggtopk_stays_exact_over_rounds_with_its_threshold_as_guide():
    rng, n, k = np.random.default_rng(0), 100_000, 1000
    state, residual = ClientState(np.zeros(n, np.float32)), np.zeros(n, np.float32)
    for round in range(1, 8):
        update = rng.standard_normal(n, dtype=np.float32) * np.float32(1.5**round)
        vector, indices = HGGTopK().select(update, state, [Part(0, n, k)], round, 0)
        residual += update
        assert np.array_equal(indices[0], top_by_sorting(residual, k))
        assert np.array_equal(vector, residual)
        vector[indices[0]] = residual[indices[0]] = 0


def test_a_vector_with_nan_ends_in_an_error_not_in_an_endless_loop():
    vector = np.full(10, np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="NaN"):
        top_indices(vector, None, vector, 3)


@given(vectors, share)
@settings(max_examples=150)
def test_topk_and_the_device_path_agree_with_sorting(vector, share):
    k = max(1, round(share * vector.size))
    expected, tensor = top_by_sorting(vector, k), torch.from_numpy(vector)
    assert np.array_equal(largest(tensor.abs(), k).numpy(), expected)
    assert np.array_equal(top_indices_on_device(tensor, None, tensor, k).numpy(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_device_path_finds_the_true_top_k_when_it_only_sees_a_sample(kind):
    vector = draw_vector(kind, 5 * SAMPLE, 9)
    for k in (1, vector.size // 100, vector.size // 2, vector.size):
        tensor = torch.from_numpy(vector)
        assert np.array_equal(top_indices_on_device(tensor, None, tensor, k).numpy(), top_by_sorting(vector, k))


@pytest.mark.parametrize("selection", [TopK(), HGGTopK()])
def test_tensors_and_arrays_give_the_same_selection_and_residual(selection):
    vector, residual = draw_vector("ties", 5000, 1), draw_vector("ties", 5000, 2)
    parts = [Part(0, 2000, 50), Part(2000, 5000, 7)]
    host, device = ClientState(residual.copy()), ClientState(torch.from_numpy(residual.copy()))
    a = selection.select(vector, host, parts, 1, 0)
    b = selection.select(torch.from_numpy(vector), device, parts, 1, 0)
    assert np.array_equal(a.vector, b.vector.numpy())
    for mine, other, part in zip(a.indices, b.indices, parts, strict=True):
        expected = top_by_sorting((vector + residual)[part.start : part.stop], part.k) + part.start
        assert np.array_equal(mine, expected)
        assert np.array_equal(other.numpy(), expected)


@given(st.integers(1, 500), share, st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_a_drawn_index_set_has_the_asked_size_and_depends_on_the_seed_alone(size, share, seed, group):
    count = round(share * size)
    indices = draw(seed, group, count, size)
    assert indices.size == count
    assert (np.diff(indices) > 0).all()
    assert count == 0 or (indices[0] >= 0 and indices[-1] < size)
    assert np.array_equal(indices, draw(seed, group, count, size))


def test_drawn_index_sets_never_change_between_versions():
    assert draw(1234, 0, 5, 1000).tolist() == [12, 300, 470, 593, 890]


def test_every_coordinate_is_drawn_equally_often():
    hits = np.zeros(20)
    for seed in range(4000):
        hits[draw(seed, 0, 8, 20)] += 1
    assert np.abs(hits / 4000 - 0.4).max() < 0.04  # five standard deviations
