"""Rows of zeros in a dense payload."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedsparse.compression import ClientState, UpdateCodec, decode
from fedsparse.compression.wire import HEADER, MOST_SEGMENTS, SEGMENT
from fedsparse.compression.zero_rows import is_whole
from fedsparse.vector import FlatModel, Layout

from .common import layout_of_shapes

FIXED = HEADER.size + 4  # and the checksum


def coded(layout: Layout, update: np.ndarray, values: str = "f32") -> bytes:
    codec = UpdateCodec(layout, "none", values=values, error_feedback=False)
    payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
    back = decode(payload, layout).to_dense()
    if values == "f32":
        assert np.array_equal(back, update)
    else:
        assert np.allclose(back, update, rtol=0.01)
        assert np.array_equal(back == 0, update == 0)
    return payload


def update_of(layout: Layout) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)


@pytest.mark.parametrize(("values", "bytes_a_value"), [("f32", 4), ("f16", 2), ("bf16", 2)])
def test_rows_of_zeros_cost_two_headers_a_run_and_single_zeros_nothing_less(values: str, bytes_a_value: int) -> None:
    layout = layout_of_shapes((5,), (1000, 100), (1200, 80), buffers=7)
    update, second = update_of(layout), 5 + 1000 * 100
    dense = len(coded(layout, update, values))
    assert dense == FIXED + 2 * SEGMENT.size + bytes_a_value * (second + 1200 * 80) + 4 * 7
    rows = update[5:second].reshape(1000, 100)
    rows[2] = rows[3] = rows[999] = 0  # the last row meets the first one of the next entry
    rows[5, 1:] = 0
    update[second : second + 80] = 0
    skipped = 2 * 100 + 100 + 80
    assert len(coded(layout, update, values)) == dense + 4 * SEGMENT.size - bytes_a_value * skipped
    assert len(coded(layout, np.zeros_like(update), values)) < 200


def test_an_update_is_whole_if_it_leaves_out_rows_of_zeros_alone_and_no_choice_of_coordinates() -> None:
    layout = layout_of_shapes((5,), (1000, 100), buffers=7)
    update = update_of(layout)
    update[5:-7] = 0
    assert is_whole(decode(coded(layout, update), layout))
    for codec in (UpdateCodec(layout, "topk", density=0.5), UpdateCodec(layout, "threshold", threshold=1e6)):
        payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
        assert not is_whole(decode(payload, layout)), codec.compressor


@pytest.mark.parametrize("shape", [(2000, 16), (999, 100)], ids=["narrow rows", "few rows"])
def test_rows_of_zeros_of_what_is_no_large_table_travel_as_values(shape: tuple[int, int]) -> None:
    layout = layout_of_shapes(shape)
    update = update_of(layout)
    update.reshape(shape)[::2] = 0
    assert len(coded(layout, update)) == FIXED + SEGMENT.size + 4 * layout.size


def test_of_more_runs_than_a_payload_has_room_for_the_longest_are_left_out() -> None:
    layout = layout_of_shapes((20_000, 64))
    update = update_of(layout)
    rows = update.reshape(20_000, 64)
    rows[::2] = 0
    rows[19_001] = rows[19_003] = 0  # one run of five rows
    left_out = (MOST_SEGMENTS - 2) // 2 + 4
    values = len(coded(layout, update)) - FIXED - (MOST_SEGMENTS - 2) * SEGMENT.size
    assert values == 4 * 64 * (20_000 - left_out)


def test_the_rows_of_tokens_that_a_client_does_not_have_are_zero_and_cost_nothing() -> None:
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Embedding(2000, 64), nn.Linear(64, 10)))
    before, tokens = model.vector.clone(), torch.randint(0, 50, (8, 12))
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model.module(tokens).flatten(0, 1), tokens.flatten() % 10).backward()
        optimizer.step()
    update = (model.vector - before).numpy()
    touched = len(set(tokens.flatten().tolist()))
    assert len(coded(model.layout, update)) <= FIXED + 4 * (64 * touched + 650) + 2 * 17 * touched
