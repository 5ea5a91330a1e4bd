"""A client's state between rounds: lost payloads return to it, and it comes back from bytes."""

import warnings

import numpy as np
import pytest

from fedsparse.catalogue import COMPRESSORS
from fedsparse.compression import ClientState, UpdateCodec

from .common import ALL, LAYOUT, run, updates


@pytest.mark.parametrize(("compressor", "values", "scope"), ALL)
def test_a_payload_that_was_not_accepted_returns_to_the_residual_once(compressor, values, scope):
    codec = UpdateCodec(LAYOUT, compressor, 0.1, scope, values)
    dense, state = run(codec, 3)
    sent = dense[-1][: LAYOUT.parameters]
    left = 0.0 if state.residual is None else state.residual.copy()
    codec.settle(state, 2)  # the server accepted round 2 last, so that round 3 was lost
    if codec.feedback.is_on:
        assert np.array_equal(state.residual, left + sent)
    else:
        assert state.residual is None
        assert state.payload == b""
    settled = None if state.residual is None else state.residual.copy()
    codec.settle(state, 2)
    codec.settle(state, None)
    assert np.array_equal(settled, state.residual)
    codec.encode(updates(1)[0], state, round=4, seed=0)


def test_an_accepted_payload_leaves_the_residual_as_it_is():
    codec = UpdateCodec(LAYOUT, "hggtopk", 0.1)
    _, state = run(codec, 3)
    before = state.residual.copy()
    codec.settle(state, 3)
    codec.settle(state, 3)
    assert np.array_equal(state.residual, before)
    assert state.payload == b""


def test_losing_every_payload_loses_nothing():
    codec, state, total = UpdateCodec(LAYOUT, "hggtopk", 0.1), ClientState(), np.zeros(LAYOUT.parameters, np.float32)
    for round, update in enumerate(updates(5), 1):
        codec.settle(state, None)
        codec.encode(update, state, round=round, seed=0)
        total += update[: LAYOUT.parameters]
    codec.settle(state, None)
    np.testing.assert_allclose(state.residual, total, rtol=1e-5, atol=1e-6)


def test_encoding_before_the_last_payload_is_settled_is_refused():
    codec = UpdateCodec(LAYOUT)
    _, state = run(codec, 1)
    with pytest.raises(ValueError, match="payload of round 1 was not settled"):
        codec.encode(updates(1)[0], state, round=2, seed=0)


@pytest.mark.parametrize(("compressor", "values", "scope"), ALL)
def test_a_state_restored_from_read_only_bytes_gives_the_same_payloads(compressor, values, scope):
    codec, kept, restored = UpdateCodec(LAYOUT, compressor, 0.1, scope, values), ClientState(), ClientState()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for round, update in enumerate(updates(4), 1):
            stored = {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in restored.to_dict().items()}
            copies = {k: bytes(v) for k, v in stored.items() if isinstance(v, bytes)}
            restored = ClientState.from_dict(
                {
                    k: np.frombuffer(v, np.float32) if isinstance(v, bytes) and k != "payload" else v
                    for k, v in stored.items()
                }
            )
            for state in (kept, restored):
                codec.settle(state, round - 1)
            payloads = [codec.encode(update, state, round=round, seed=round)[0] for state in (kept, restored)]
            assert payloads[0] == payloads[1]
            assert all(stored[k] == copies[k] for k in copies)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_clients_of_one_codec_share_nothing(compressor):
    codec = UpdateCodec(LAYOUT, compressor, 0.1)
    alone, _ = run(codec, 3)
    state, busy, other = ClientState(), [], ClientState()
    for round, update in enumerate(updates(3), 1):
        codec.encode(-7 * update, other, round=round, seed=99)
        codec.settle(other, round)
        payload, _ = codec.encode(update, state, round=round, seed=round)
        codec.settle(state, round)
        busy.append(codec.decode(payload).to_dense())
    assert np.array_equal(alone, busy)
