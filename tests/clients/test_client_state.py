"""A client's state is kept the same in Flower's Context, in files and on a device."""

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, Context, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from fedsparse.catalogue import COMPRESSORS
from fedsparse.clients.state_store import kept_moments
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression import codec as module
from fedsparse.engine.client_store import ARRAYS, HeldArray, load_state, save_state
from fedsparse.engine.state_files import StateFiles, go_back
from fedsparse.sparsity import TopologyMethod
from tests.fedsparse.compression.common import draw_vector, layout_of

LAYOUT = layout_of(300, 1, 40, 200, buffers=(6, 6))


@pytest.fixture(params=["context", "files"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> StateFiles | None:
    return StateFiles(tmp_path / "clients" / "7") if request.param == "files" else None


@pytest.fixture
def context() -> Context:
    return Context(1, 1, {}, RecordDict(), {})


def test_a_loaded_state_equals_the_saved_state(context: Context, file: StateFiles | None) -> None:
    assert load_state(context, file).residual is None
    residual = np.arange(6, dtype=np.float32)
    save_state(context, file, ClientState(residual, {"momentum": residual * 2}, b"payload\0\0", 3))
    state = load_state(context, file)
    np.testing.assert_array_equal(state.residual, residual)
    np.testing.assert_array_equal(state.memory["momentum"], residual * 2)
    assert (state.payload, state.sent_round) == (b"payload\0\0", 3)


def test_the_saved_state_does_not_follow_later_changes(context: Context, file: StateFiles | None) -> None:
    residual = np.zeros(3, np.float32)
    save_state(context, file, ClientState(residual))
    residual += 1
    np.testing.assert_array_equal(load_state(context, file).residual, np.zeros(3))


@pytest.mark.parametrize("place", ["context", "files"])
def test_moments_are_kept_while_at_most_one_readjustment_passes_and_advance_once_a_round(
    context: Context, place: str, tmp_path: Path
) -> None:
    def steps(round: int) -> int:
        task = ConfigRecord({"round": round, "state-folder": str(tmp_path) if place == "files" else ""})
        with kept_moments(context, task, 7, TopologyMethod(0.5, interval=2, end=100)) as memory:
            before = memory.get("step", np.zeros(1, np.float32))
            memory["step"] = before + 1
        return int(before[0])

    assert [steps(round) for round in (1, 3, 4)] == [0, 1, 2]
    assert [steps(5), steps(5), steps(6)] == [3, 4, 4], "a second run of one message changes nothing"
    assert steps(8) == 5, "the topology changed after round 6 alone"
    assert steps(12) == 0, "a weight pruned after round 8 may have come back after round 10"


def test_a_full_disk_is_one_line_and_loses_nothing(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFiles(tmp_path)
    save_state(context, file, ClientState(np.ones(3, np.float32)))

    def full(stream: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"cannot keep the client's state in .*1\.npz: No space left on device"):
        save_state(context, file, ClientState(np.zeros(3, np.float32)))
    np.testing.assert_array_equal(load_state(context, file).residual, np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["1.npz"]


def test_a_damaged_file_is_set_aside_with_one_line_and_the_client_starts_fresh(
    context: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = StateFiles(tmp_path)
    save_state(context, files, ClientState(np.ones(3, np.float32)))
    files.next.write_bytes(files.next.read_bytes()[:-20])
    assert load_state(context, files).residual is None
    assert load_state(context, files).residual is None
    (line,) = caplog.messages
    assert line.startswith(f"the state in {files.next} is damaged (")
    save_state(context, files, ClientState(np.zeros(3, np.float32)))
    np.testing.assert_array_equal(load_state(context, files).residual, np.zeros(3))


def test_only_this_user_may_read_a_state_file(context: Context, tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "7")
    save_state(context, files, ClientState(np.ones(3, np.float32)))
    assert files.next.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("kept", "left"), [((), [8, 9]), ((3,), [3, 8, 9]), ((3, 6), [3, 5, 8, 9]), ((1, 2), [2, 8, 9])]
)
def test_a_client_keeps_the_states_that_the_server_can_go_back_to(
    context: Context, tmp_path: Path, kept: tuple[int, ...], left: list[int]
) -> None:
    """A stop in the middle of round 9 goes back to round 8, and the checkpoints to the rounds that are kept."""
    folder = tmp_path / "7"
    for round in (2, 3, 5, 8):
        save_state(context, StateFiles(folder, round, range(10)), ClientState(np.full(3, round, np.float32)))
    save_state(context, StateFiles(folder, 9, kept), ClientState(np.full(3, 9, np.float32)))
    assert sorted(int(file.stem) for file in folder.iterdir()) == left
    go_back(tmp_path, 6)
    assert StateFiles(folder).newest() == (folder / f"{max(r for r in left if r <= 6)}.npz" if kept else None)


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("where", ["numpy", "cpu", "cuda"])
def test_a_stored_state_gives_the_same_payloads_as_a_state_in_memory(
    compressor: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds 2 and 3 are lost, and in rounds 4 and 6 a first attempt fails after its computation."""
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU here")
    # The codec would turn tensors on the CPU into NumPy arrays; this test computes on them as on a device.
    monkeypatch.setattr(module, "as_vector", lambda update: update)
    codec = UpdateCodec(LAYOUT, compressor, 0.1, residual_decay=0.9)
    updates = [draw_vector("normal", LAYOUT.size, round) for round in range(6)]
    kept, payloads = ClientState(), dict[str, list[bytes]]()

    def step(round: int, state: ClientState) -> bytes:
        update = updates[round - 1]
        codec.settle(state, 1 if round < 5 else round - 1)
        sent = codec.encode(update if where == "numpy" else torch.tensor(update).to(where), state, round=round, seed=7)
        return sent[0]

    payloads["never stored"] = [step(round, kept) for round in range(1, 7)]
    for store in ("context", "sent context", "files"):
        file, payloads[store] = StateFiles(tmp_path / "7") if store == "files" else None, []
        context = Context(1, 1, {}, RecordDict(), {})
        for round in range(1, 7):
            if round in (4, 6):
                step(round, load_state(context, file))
            state = load_state(context, file)
            payloads[store].append(step(round, state))
            save_state(context, file, state)
            if store == "sent context":
                context = pickle.loads(pickle.dumps(context))
        assert payloads[store] == payloads["never stored"], store


def test_a_tensor_stays_a_tensor_in_a_context_until_the_context_is_sent(context: Context) -> None:
    residual = torch.arange(6.0)
    save_state(context, None, ClientState(residual, {"momentum": residual * 2}))
    state = load_state(context, None)
    assert isinstance(state.residual, torch.Tensor)
    state.residual += 1  # by an attempt that fails
    assert torch.equal(load_state(context, None).residual, torch.arange(6.0))
    held = context.state[ARRAYS]["residual"]
    assert isinstance(held, HeldArray)
    sent = pickle.loads(pickle.dumps(context))
    assert type(sent.state[ARRAYS]["residual"]) is Array
    np.testing.assert_array_equal(load_state(sent, None).residual, np.arange(6, dtype=np.float32))
    proto = recorddict_from_proto(recorddict_to_proto(context.state))
    assert proto[ARRAYS]["residual"] == sent.state[ARRAYS]["residual"]
