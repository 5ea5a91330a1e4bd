"""A checkpoint gives back what was saved, to the bit, costs what was touched, and survives damage and a full disk."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fedsparse import files
from fedsparse.checkpoint import Checkpoints, read_state, write_state
from fedsparse.errors import RunFailed

SERVER = {"weights": torch.arange(5.0), "names": ["a", "b"]}


def clients_of(round: int, *clients: int) -> list[tuple[int, dict[str, Any]]]:
    return [(client, {"residual": torch.full((3,), float(round)), "known": [client, round]}) for client in clients]


def write(checkpoints: Checkpoints, round: int, *clients: int, all_clients: bool = False) -> None:
    rows = [{"round": r} for r in range(0 if all_clients else checkpoints.saved_rows, round + 1)]
    states = clients_of(round, *clients)
    checkpoints.write(round, {"lr": 0.1}, SERVER | {"round": round}, rows, states, all_clients=all_clients)


def quiet(line: str) -> None:
    raise AssertionError(line)


def test_a_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {
        "floats": torch.tensor([0.0, -0.0, math.inf, math.nan, 1e-45]),
        **{"double": torch.rand(3, 2, dtype=torch.float64), "half": torch.rand(4).bfloat16()},
        **{"mask": torch.tensor([True, False]), "scalar": torch.tensor(7), "nothing": torch.empty(0)},
        **{"strided": torch.arange(6.0).reshape(2, 3).T, "view": shared[:3], "the same memory": shared},
    }
    others = {"bits": b"\0\1\0", "empty": b"", "large": 2**64 - 1, "list": [1, 0.1, -math.inf, True, None, "text"]}
    nested = {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}
    write_state(tmp_path / "x.safetensors", tensors | others | nested)
    read = read_state(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        raw, wanted = (t.contiguous().reshape(-1).view(torch.uint8) for t in (read[name], tensor))
        assert torch.equal(raw, wanted)
    assert {name: read[name] for name in others} == others
    assert (read["a"]["b"], read["a.b"]) == (1, 0)


def test_a_state_that_json_and_tensors_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^the state optimizer\.seen is a set, which a checkpoint cannot hold$"):
        write_state(tmp_path / "x.safetensors", {"optimizer": {"seen": {1}}})
    assert not list(tmp_path.iterdir())


def test_the_newest_state_of_each_client_and_every_round_come_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    write(checkpoints, 1, 0, 1, 2, all_clients=True)
    write(checkpoints, 3, 1)
    write(checkpoints, 4, 2, 5)
    again = Checkpoints(tmp_path / "c")
    saved = again.load(quiet)
    assert saved is not None
    assert (saved.round, saved.config, saved.server["round"]) == (4, {"lr": 0.1}, 4)
    assert [row["round"] for row in saved.rows] == [0, 1, 2, 3, 4]
    assert {client: state["known"] for client, state in saved.clients.items()} == {
        **{0: [0, 1], 1: [1, 3], 2: [2, 4], 5: [5, 4]}
    }
    assert again.rounds == [3, 4]
    write(again, 6, 0)  # goes on with the parts of before
    assert Checkpoints(tmp_path / "c").load(quiet).clients[5]["known"] == [5, 4]


def test_a_folder_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "nowhere").load(quiet) is None


def test_a_checkpoint_writes_only_the_clients_that_changed_until_the_parts_have_doubled(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1, *range(100), all_clients=True)
    written = []
    for round in range(2, 30):
        everything = checkpoints.wants_all(10)
        written.append(100 if everything else 10)
        write(checkpoints, round, *range(100 if everything else 10), all_clients=everything)
    assert sum(written) <= 2 * 10 * len(written) + 100
    held = sum(len(read_state(file)["clients"]) for file in tmp_path.glob("part-*"))
    assert held <= 4 * 100


def test_the_last_two_checkpoints_are_kept_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for round in range(1, 6):
        write(checkpoints, round, 0, all_clients=True)
    (tmp_path / "6.json.1.part").touch()  # of a process that was killed
    write(checkpoints, 7, 0, all_clients=True)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {f"{kind}{r}{end}" for r in (5, 7) for kind, end in (
        ("", ".json"), ("server-", ".safetensors"), ("part-", "-0.safetensors"))}  # fmt: skip
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


@pytest.mark.parametrize("damaged", ["4.json", "server-4.safetensors", "part-4-0.safetensors"])
@pytest.mark.parametrize("how", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_with_one_line(
    tmp_path: Path, damaged: str, how: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for round in (2, 4):
        write(checkpoints, round, 0, 1, all_clients=round == 2)
    file = tmp_path / damaged
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if how == "flipped" else content[: len(content) // 2])
    lines: list[str] = []
    if how == "missing":
        file.unlink()
    saved = (again := Checkpoints(tmp_path)).load(lines.append)
    assert saved.round == 2
    assert [row["round"] for row in saved.rows] == [0, 1, 2]
    assert len(lines) == (0 if (damaged, how) == ("4.json", "missing") else 1)
    assert all(line.startswith("the checkpoint of round 4 is damaged (") and "\n" not in line for line in lines)
    write(again, 4, 0)
    assert Checkpoints(tmp_path).load(quiet).round == 4


def test_a_run_all_of_whose_checkpoints_are_damaged_does_not_go_on(tmp_path: Path) -> None:
    write(Checkpoints(tmp_path), 2, 0, all_clients=True)
    (tmp_path / "server-2.safetensors").unlink()
    with pytest.raises(RunFailed, match=r"^no checkpoint in .* is without damage$"):
        Checkpoints(tmp_path).load(lambda line: None)


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    checkpoints, calls, sync = Checkpoints(tmp_path), [0], files.sync
    write(checkpoints, 1, 0, all_clients=True)
    before = {file.name for file in tmp_path.iterdir()}

    def full(path: Path) -> None:
        calls[0] += path.suffix == ".part"
        if calls[0] == fails_at:
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        write(checkpoints, 2, 0, 1)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.part"))
    assert before <= {file.name for file in tmp_path.iterdir()}
    assert Checkpoints(tmp_path).load(quiet).round == 1
    assert {file.name for file in tmp_path.iterdir()} == before
