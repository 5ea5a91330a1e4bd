"""The file of a packed model: what comes back, its sizes, and hostile bytes."""

import json
import math
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsparse.compression.wire import checksum
from fedsparse.packing.packed_file import HEAD, MAGIC, VERSION, PackedFault, pack_state, unpack_state
from fedsparse.packing.shared_weights import SharedWeights
from fedsparse.packing.streams import code_positions, read_positions


def shared(shape: tuple[int, ...], clusters: int, sparsity: float, seed: int = 0) -> SharedWeights:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) >= sparsity)
    return SharedWeights.of(weight, clusters)


STATE = {
    "conv.weight": shared((8, 4, 3, 3), 16, 0.0),
    "fc.weight": shared((40, 300), 32, 0.97),
    "none.weight": shared((5, 5), 4, 1.0),
    "one.weight": SharedWeights((3, 2), np.ones(6, np.int64), np.float32([0.5])),
    "bn.running_var": torch.rand(7),
    "bn.num_batches_tracked": torch.tensor(12),
    "half": torch.rand(3, 2).half(),
    "tied": "fc.weight",
    "empty": torch.empty(0, 3),
}


def whole(tensor: Tensor | SharedWeights | str) -> Tensor:
    if isinstance(tensor, str):
        return whole(STATE[tensor])
    return tensor.tensor() if isinstance(tensor, SharedWeights) else tensor


def test_a_state_comes_back_to_the_bit() -> None:
    data, _ = pack_state(STATE, "words")
    back, vocabulary = unpack_state(data)
    assert vocabulary == "words"
    assert list(back) == list(STATE)
    for name, tensor in STATE.items():
        assert back[name].dtype == whole(tensor).dtype
        assert torch.equal(back[name], whole(tensor))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.999])
def test_sizes_are_near_the_entropy_and_the_shorter_coding_is_kept(sparsity: float) -> None:
    weights = shared((500, 400), 32, sparsity)
    data, sizes = pack_state({"w": weights})
    (size,) = sizes.values()
    kept = size.kept / size.weights
    counts = np.bincount(weights.codes)[1:] / max(size.kept, 1)
    by_hand = -sum(p * math.log2(p) for p in (kept, 1 - kept) if p)
    by_hand -= kept * sum(p * math.log2(p) for p in counts[counts > 0])
    assert size.entropy == pytest.approx(by_hand * size.weights)
    tables = 8 * (32 + 256 + 5)
    assert size.entropy < 8 * size.huffman < 1.1 * size.entropy + tables + size.kept
    assert size.entropy < 8 * size.ours < 1.1 * size.entropy + tables
    assert size.stored <= min(size.huffman, size.ours) + 4 * size.clusters
    assert len(data) < size.stored + 300


@pytest.mark.parametrize(
    "positions", [[], [0], [999], [0, 1, 2], [254, 255, 256], [255], [256, 999], list(range(1000))]
)
def test_positions_come_back_from_both_codings(positions: list[int]) -> None:
    expected = np.array(positions, np.int64)
    for stream in code_positions(expected, 1000):
        body = memoryview(stream.body)
        found = read_positions(stream.kind, stream.alphabet, body, expected.size, 1000)
        assert np.array_equal(found, expected)


def test_a_file_that_is_cut_or_flipped_anywhere_is_refused_in_one_line() -> None:
    data, _ = pack_state(STATE)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data[: rng.integers(0, len(data))] if rng.random() < 0.3 else data)
        if len(damaged) == len(data):
            damaged[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        with pytest.raises(PackedFault, match=r"\A[^\n]+\Z"):
            unpack_state(bytes(damaged))


def test_a_lie_with_a_right_checksum_is_refused_or_gives_whole_tensors() -> None:
    data, _ = pack_state(STATE)
    rng, refused = np.random.default_rng(1), 0
    for _ in range(600):
        lie = bytearray(data[:-4])
        for _ in range(rng.integers(1, 4)):
            lie[rng.integers(0, len(lie))] = rng.integers(0, 256)
        if rng.random() < 0.2:
            del lie[rng.integers(0, len(lie)) :]
        try:
            back, _ = unpack_state(bytes(lie) + checksum(bytes(lie)))
            assert {name: t.shape for name, t in back.items()} == {name: whole(t).shape for name, t in STATE.items()}
        except PackedFault:
            refused += 1
    assert refused > 100


def test_a_small_file_that_declares_a_huge_tensor_is_refused_before_it_is_made() -> None:
    weights = SharedWeights((1 << 12, 1 << 13), np.zeros(0, np.int64), np.float32([]))
    data, _ = pack_state({"w": weights})
    with pytest.raises(PackedFault, match="declares more weights"):
        unpack_state(data)


@pytest.mark.parametrize(
    "header",
    [
        {"vocabulary": "\ud800", "tensors": []},
        {"vocabulary": "", "tensors": [{"name": "w", "same": ["w"]}]},
        {"vocabulary": "", "tensors": [{"name": "w", "shape": [True], "dtype": "bool"}]},
    ],
    ids=["a text that no file can hold", "a list as a name", "a truth as a number"],
)
def test_a_header_with_a_wrong_type_is_refused_in_one_line(header: dict[str, Any]) -> None:
    squeezed = zlib.compress(json.dumps(header).encode())
    data = HEAD.pack(MAGIC, VERSION, len(squeezed)) + squeezed
    with pytest.raises(PackedFault, match=r"\A[^\n]+\Z"):
        unpack_state(data + checksum(data))
