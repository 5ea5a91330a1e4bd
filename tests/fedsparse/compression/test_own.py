"""Compressors of the user's own, named by file and class."""

from pathlib import Path

import numpy as np
import pytest

from fedsparse.compression import ClientState, UpdateCodec, decode
from fedsparse.errors import PluginError

from .common import draw_vector, layout_of, layout_of_shapes

OWN = """
import numpy as np
import torch


class BlockTopK:
    "Keeps the blocks of largest norm."

    def __init__(self, block=8):
        self.block = block

    def indices(self, vector, parts, memory, seed):
        memory["rounds"] = memory.get("rounds", np.zeros(1, np.float32)) + 1
        return [start + self.chosen(vector[start:stop], k) for start, stop, k in parts]

    def chosen(self, part, k):
        starts = np.arange(0, len(part), self.block)
        best = np.argsort(-np.add.reduceat(part**2, starts))[: -(-k // self.block)]
        return np.flatnonzero(np.isin(np.arange(len(part)) // self.block, best))


class Doubled:
    "Adds each update twice."

    def select(self, update, state, parts, round, seed):
        state.residual = state.residual + 2 * update
        return state.residual, [np.arange(start, start + k) for start, _, k in parts]


class Svd:
    def factor(self, matrix, rank, memory, name, seed):
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, :rank] * s[:rank], vt[:rank].T


class TooManyColumns(Svd):
    def factor(self, matrix, rank, memory, name, seed):
        return super().factor(matrix, rank + 1, memory, name, seed)


class Fixed:
    def __init__(self, found):
        self.found = found

    def indices(self, vector, parts, memory, seed):
        return self.found


class Nothing:
    pass


def function():
    pass
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "own_compressors.py"
    file.write_text(OWN)
    return f"{file}:"


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_an_own_selection_sends_its_coordinates_and_keeps_the_rest(own: str, scope: str) -> None:
    layout, state = layout_of(320, 80, buffers=(3,)), ClientState()
    codec = UpdateCodec(layout, own + "BlockTopK", 0.1, scope, values="f16", block=16)
    total = np.zeros(400, np.float32)
    for round in (1, 2, 3):
        update = draw_vector("normal", 403, round)
        payload, stats = codec.encode(update, state, round=round, seed=0)
        codec.settle(state, round)
        total += update[:400]
        sent = decode(payload, layout).to_dense()[:400]
        assert set(np.add.reduceat(sent != 0, np.arange(0, 400, 16))) == {0, 16}
        assert stats["density"] == pytest.approx(48 / 400)
        np.testing.assert_allclose(sent + state.residual, total, atol=1e-6)
        total -= sent
    assert state.memory["rounds"] == 3


def test_an_own_selection_may_accumulate_in_its_own_way(own: str) -> None:
    layout, state = layout_of(50), ClientState()
    codec, update = UpdateCodec(layout, own + "Doubled", 0.1), draw_vector("normal", 50, 0)
    sent = codec.decode(codec.encode(update, state, round=1, seed=0)[0]).to_dense()
    assert np.array_equal(np.flatnonzero(sent), np.arange(5))
    assert np.array_equal(sent + state.residual, 2 * update)


def test_an_own_factorization_sends_its_factors(own: str) -> None:
    layout, state = layout_of_shapes((40, 30), (7,)), ClientState()
    codec, update = UpdateCodec(layout, own + "Svd", 0.2), draw_vector("normal", layout.size, 0)
    payload, _ = codec.encode(update, state, round=1, seed=0)
    sent = codec.decode(payload).to_dense()
    assert np.linalg.matrix_rank(sent[:1200].reshape(40, 30), tol=1e-4) == 3
    np.testing.assert_allclose(sent + state.residual, update, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"TooManyColumns: factors of a \(40, 30\) matrix and rank at most 3"
    ) as caught:
        UpdateCodec(layout, own + "TooManyColumns", 0.2).encode(update, ClientState(), round=1, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.array([1, 2]), "a list of 1 arrays"),
        ([np.array([1]), np.array([2])], "a list of 1 arrays"),
        ([[1, 2]], "int64 of one dimension"),
        ([np.array([1, 2], np.int32)], "int64 of one dimension"),
        ([np.array([[1, 2]])], "int64 of one dimension"),
        ([np.array([1.0, 2.0])], "int64 of one dimension"),
        ([np.array([2, 1])], "sorted, distinct, and here from 0 to 49"),
        ([np.array([1, 1])], "sorted, distinct"),
        ([np.array([-1, 1])], "sorted, distinct"),
        ([np.array([1, 50])], "sorted, distinct"),
    ],
)
def test_own_indices_that_break_the_contract_are_one_line_with_the_compressors_name(own, found, message) -> None:
    codec = UpdateCodec(layout_of(50), own + "Fixed", 0.1, found=found)
    with pytest.raises(ValueError, match=message) as caught:
        codec.encode(draw_vector("normal", 50, 0), ClientState(), round=1, seed=0)
    assert str(caught.value).startswith(own + "Fixed: ")
    assert "\n" not in str(caught.value)


def test_own_indices_may_be_all_or_none_of_the_coordinates(own: str) -> None:
    update = draw_vector("normal", 50, 0)
    for found, expected in ((None, update), ([np.zeros(0, np.int64)], np.zeros(50))):
        codec = UpdateCodec(layout_of(50), own + "Fixed", found=found)
        payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
        assert np.array_equal(codec.decode(payload).to_dense(), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "is no compressor: it should be a class with a method indices, select, factor"),
        ("function", "is no compressor"),
        ("Missing", "has no 'Missing'"),
        ("Fixed", "TypeError: .*missing 1 required positional argument: 'found'"),
    ],
)
def test_an_own_compressor_that_cannot_be_used_is_one_line(own: str, name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        UpdateCodec(layout_of(50), own + name)
    assert own + name in str(caught.value)
    assert "\n" not in str(caught.value)
