"""A payload of at most so many bytes."""

import time
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from fedsparse.compression import ClientState, UpdateCodec, decode
from fedsparse.compression.within import encode_within
from tests.fedsparse.compression.common import layout_of_shapes

LAYOUT = layout_of_shapes((200, 100), (100,), buffers=20)


def update(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, LAYOUT.size).astype(np.float32)


def codec(compressor: str, values: str, scope: str = "global") -> UpdateCodec:
    return UpdateCodec(LAYOUT, compressor, values=values, scope=scope)


@pytest.mark.parametrize("most", [600, 3000, 12000])
@pytest.mark.parametrize("first", [0.0001, 0.05, 1.0])
@pytest.mark.parametrize(
    "parts",
    [("hggtopk", "f16"), ("topk", "int2", "chunk"), ("hggtopk", "sign", "layer"), ("randomk", "f32"), ("dgc", "int4")],
    ids=lambda parts: parts[0] + "-" + parts[1],
)
def test_a_payload_fills_its_bytes_wherever_the_trials_begin(parts: tuple[str, ...], first: float, most: int) -> None:
    whole, _ = codec(*parts).encode(update(1), ClientState(), round=1, seed=1, density=1.0)
    most = min(most, len(whole) // 2)
    payload, stats, _ = encode_within(codec(*parts), update(1), ClientState(), most, first=first, round=1, seed=1)
    assert 0.97 * most <= len(payload) <= most
    assert 0 < stats["density"] < 1


@pytest.mark.parametrize("compressor", ["hggtopk", "topk", "dgc", "redsync", "powersgd"])
def test_trials_leave_the_clients_state_and_lose_nothing(compressor: str) -> None:
    parts = codec(compressor, "f16")
    state = ClientState()
    parts.encode(update(1), state, round=1, seed=1, density=0.1)
    parts.settle(state, 1)
    before = deepcopy(state)
    payload, _, after = encode_within(parts, update(2), state, 2000, first=0.01, round=2, seed=2)
    assert isinstance(state.residual, np.ndarray)
    np.testing.assert_array_equal(state.residual, before.residual)
    np.testing.assert_equal(state.memory, before.memory)
    if compressor != "dgc":  # which sends its momentum
        sent = decode(payload, LAYOUT).to_dense()[: LAYOUT.parameters]
        np.testing.assert_allclose(
            sent + after.residual, update(2)[: LAYOUT.parameters] + before.residual, rtol=1e-5, atol=1e-5
        )


def test_the_seconds_of_a_payload_are_those_of_all_trials_whatever_they_were_for() -> None:
    class Slow(UpdateCodec):
        trials = 0

        def encode(self, *positional: Any, **keywords: Any) -> tuple[bytes, dict[str, float]]:
            self.trials += 1
            time.sleep(0.02)  # beside what the codec itself counts
            return super().encode(*positional, **keywords)

    slow = Slow(LAYOUT, "topk", values="f16")
    _, stats, _ = encode_within(slow, update(1), ClientState(), 2000, first=0.9, round=1, seed=1)
    assert slow.trials > 1
    assert stats["compress_seconds"] + stats["encode_seconds"] > 0.02 * slow.trials


@pytest.mark.parametrize("most", [-500.0, 0.0, 10.0])
def test_where_no_payload_is_so_short_the_shortest_is_sent(most: float) -> None:
    shortest, _ = codec("topk", "f16").encode(update(1), ClientState(), round=1, seed=1, density=1 / LAYOUT.parameters)
    payload, *_ = encode_within(codec("topk", "f16"), update(1), ClientState(), most, first=0.1, round=1, seed=1)
    assert len(payload) == len(shortest)
