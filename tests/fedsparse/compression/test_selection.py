import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.catalogue import COMPRESSORS
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.compressors import build_compressor
from fedsparse.compression.hggtopk import SAMPLE, HGGTopK, top_indices, top_indices_on_device
from fedsparse.compression.indices import draw
from fedsparse.compression.selection import Part
from fedsparse.compression.topk import largest
from fedsparse.config.presets import FACTORIZATIONS

from .common import KINDS, draw_vector, top_by_sorting, vectors

SELECTIONS = [name for name in COMPRESSORS if name not in FACTORIZATIONS]
EXACT = ("topk", "hggtopk", "dgc", "randomk")

share = st.floats(0.0, 1.0)


def selected(name, update, residual, parts):
    """The vector that a selection of the catalogue selected from, and its indices."""
    selection, state = build_compressor(name, {}), ClientState(residual)
    if hasattr(selection, "select"):
        return selection.select(update, state, parts, 1, 3)
    vector = update + residual
    return vector, selection.indices(vector, parts, state.memory, 3)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["array", "tensor"])
def test_a_selection_keeps_its_contract(name, kind, place):
    update, residual = draw_vector(kind, 5000, 1), draw_vector(kind, 5000, 2)
    parts = [Part(0, 2000, 50), Part(2000, 2001, 1), Part(2001, 5000, 7)]
    if place == "array":
        update.flags.writeable = False
        vector, indices = selected(name, update, residual.copy(), parts)
    else:
        vector, indices = selected(name, torch.from_numpy(update), torch.from_numpy(residual.copy()), parts)
    assert np.array_equal(np.asarray(vector), update + residual)
    if indices is None:
        assert name == "none"
        return
    for found, (start, stop, k) in zip(map(np.asarray, indices), parts, strict=True):
        assert found.dtype == np.int64
        assert (np.diff(found) > 0).all()
        assert not found.size or start <= found[0] <= found[-1] < stop
        if name in EXACT:
            assert found.size == k
        elif name != "threshold":
            assert abs(found.size - k) <= k / 3
        if name in ("topk", "hggtopk", "dgc"):
            assert np.array_equal(found, top_by_sorting((update + residual)[start:stop], k) + start)


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
    vector[:: max(1, n // SAMPLE) | 1] = sampled  # the sample differs from all other elements
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


def top_by_scores(scores, k):
    return np.sort(np.argsort(-scores, kind="stable")[:k])


@given(vectors, share)
@settings(max_examples=150)
def test_the_largest_scores_and_the_device_path_agree_with_sorting(vector, share):
    k = max(1, round(share * vector.size))
    expected, tensor = top_by_sorting(vector, k), torch.from_numpy(vector)
    for scores in (np.abs(vector), np.abs(vector).astype(np.float64) - 7):
        assert np.array_equal(largest(scores, k), top_by_scores(scores, k))
        assert np.array_equal(largest(torch.from_numpy(scores), k).numpy(), top_by_scores(scores, k))
    assert np.array_equal(top_indices_on_device(tensor, None, tensor, k).numpy(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_device_path_finds_the_true_top_k_when_it_only_sees_a_sample(kind):
    vector = draw_vector(kind, 5 * SAMPLE, 9)
    for k in (1, vector.size // 100, vector.size // 2, vector.size):
        tensor = torch.from_numpy(vector)
        assert np.array_equal(top_indices_on_device(tensor, None, tensor, k).numpy(), top_by_sorting(vector, k))


@given(st.integers(1, 500), share, st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_a_drawn_index_set_has_the_given_size_and_depends_only_on_the_seed(size, share, seed, group):
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
