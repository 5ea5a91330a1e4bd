"""A client's memory survives Flower's Context."""

import numpy as np
from flwr.app import Context, RecordDict

from clients.state import load_state, save_state
from fedsparse.compression import ClientState


def test_what_is_saved_is_loaded() -> None:
    context = Context(1, 1, {}, RecordDict(), {})
    assert load_state(context).residual is None
    residual = np.arange(6, dtype=np.float32)
    save_state(context, ClientState(residual, {"momentum": residual * 2}, b"payload", 3))
    state = load_state(context)
    np.testing.assert_array_equal(state.residual, residual)
    np.testing.assert_array_equal(state.memory["momentum"], residual * 2)
    assert (state.payload, state.sent_round) == (b"payload", 3)


def test_the_saved_state_does_not_follow_later_changes() -> None:
    context = Context(1, 1, {}, RecordDict(), {})
    residual = np.zeros(3, np.float32)
    save_state(context, ClientState(residual))
    residual += 1
    np.testing.assert_array_equal(load_state(context).residual, np.zeros(3))
