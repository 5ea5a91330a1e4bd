"""gaussian, redsync and threshold, on real updates and on difficult vectors."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.commands.bench_compressors import captured
from fedsparse.compression.gaussian import Gaussian
from fedsparse.compression.redsync import RedSync
from fedsparse.compression.selection import Part
from fedsparse.compression.threshold import Threshold
from fedsparse.config import Config

from .common import KINDS, draw_vector, vectors


@functools.cache
def real_updates() -> list[list[np.ndarray]]:
    config = Config.from_mapping({"distribution": "dirichlet", "beta": 0.1, "device": "cpu"})
    layout, updates = captured(config)
    return [[u[: layout.parameters] for u in rounds] for rounds in updates]


def selected(selection, update, k: int, memory: dict | None = None) -> np.ndarray:
    (indices,) = selection.indices(update, [Part(0, len(update), k)], {} if memory is None else memory, 0)
    return np.asarray(indices)


@pytest.mark.parametrize("selection", [Gaussian(), RedSync()])
@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.3])
def test_real_updates_with_residuals_are_selected_within_a_third_of_k(selection, density: float) -> None:
    for rounds in real_updates():
        residual, memory = np.zeros(len(rounds[0]), np.float32), {}
        k = max(1, round(density * len(rounds[0])))
        for update in rounds * 2:
            residual += update
            indices = selected(selection, residual, k, memory)
            assert abs(indices.size - k) <= k / 3
            residual[indices] = 0


@given(vectors, st.floats(0.0, 1.0))
@settings(max_examples=200, deadline=None)
def test_any_vector_is_selected_within_a_third_of_k_and_by_magnitude(vector: np.ndarray, share: float) -> None:
    k = max(1, round(share * vector.size))
    for selection in (Gaussian(), RedSync()):
        indices = selected(selection, vector, k)
        assert abs(indices.size - k) <= k / 3
        assert (np.diff(indices) > 0).all()
        left = np.delete(np.abs(vector), indices)
        assert not left.size or left.max() <= np.abs(vector[indices]).min()


@pytest.mark.parametrize("selection", [Gaussian(), RedSync(), Threshold(0.7)])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_and_arrays_are_selected_alike(selection, kind: str) -> None:
    vector = draw_vector(kind, 3000, 5)
    host, device = selected(selection, vector, 40), selected(selection, torch.from_numpy(vector), 40)
    if kind in ("normal", "heavy-tailed", "zeros", "constant"):  # sums, and so the guess, may differ in the last bit
        assert abs(host.size - device.size) <= 27
    assert isinstance(selection, Threshold) or abs(device.size - 40) <= 40 / 3


def test_redsync_keeps_its_threshold_while_the_count_is_right() -> None:
    memory, selection = {}, RedSync()
    selected(selection, draw_vector("normal", 20_000, 1), 200, memory)
    first = memory["thresholds"].copy()
    selected(selection, draw_vector("normal", 20_000, 2), 200, memory)
    assert np.array_equal(memory["thresholds"], first)
    selected(selection, draw_vector("normal", 20_000, 3) * 100, 200, memory)
    assert memory["thresholds"] > 50 * first


def test_a_fixed_threshold_selects_all_magnitudes_that_reach_it_or_none() -> None:
    vector = np.array([0.5, -1.0, 0.0, 2.0, -0.999], np.float32)
    assert selected(Threshold(1.0), vector, 1).tolist() == [1, 3]
    assert selected(Threshold(3.0), vector, 1).size == 0
    with pytest.raises(ValueError, match="threshold must be above 0"):
        Threshold(0.0)
