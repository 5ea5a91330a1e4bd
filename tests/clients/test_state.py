"""A client's memory survives in Flower's Context and in files alike."""

import errno
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from clients.state import load_state, save_state
from fedsparse.compression import ClientState


@pytest.fixture(params=["context", "files"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "clients" / "7.npz" if request.param == "files" else None


@pytest.fixture
def context() -> Context:
    return Context(1, 1, {}, RecordDict(), {})


def test_what_is_saved_is_loaded(context: Context, file: Path | None) -> None:
    assert load_state(context, file).residual is None
    residual = np.arange(6, dtype=np.float32)
    save_state(context, file, ClientState(residual, {"momentum": residual * 2}, b"payload\0\0", 3))
    state = load_state(context, file)
    np.testing.assert_array_equal(state.residual, residual)
    np.testing.assert_array_equal(state.memory["momentum"], residual * 2)
    assert (state.payload, state.sent_round) == (b"payload\0\0", 3)


def test_the_saved_state_does_not_follow_later_changes(context: Context, file: Path | None) -> None:
    residual = np.zeros(3, np.float32)
    save_state(context, file, ClientState(residual))
    residual += 1
    np.testing.assert_array_equal(load_state(context, file).residual, np.zeros(3))


def test_a_full_disk_is_one_line_and_loses_nothing(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "7.npz"
    save_state(context, file, ClientState(np.ones(3, np.float32)))

    def full(stream: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"cannot keep the client's state in .*7\.npz: No space left on device"):
        save_state(context, file, ClientState(np.zeros(3, np.float32)))
    np.testing.assert_array_equal(load_state(context, file).residual, np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["7.npz"]
