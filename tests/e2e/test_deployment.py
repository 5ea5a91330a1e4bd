"""A SuperLink and SuperNodes on loopback."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.strategies.server_app import app as server_app
from tests.e2e.deployment import deployment, marked, supernode, wait_until
from tests.strategies.federation import LOST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def settings(folder: Path, dataset: str) -> dict[str, object]:
    return {
        "dataset": dataset,
        "distribution": "dirichlet",
        "model": "mlp-small",
        "clients": 3,
        "clients-per-round": 3,
        "rounds": 2,
        "eval-every": 1,
        "logdir": str(folder / "runs"),
        "outfile": str(folder / "out.json"),
    }


def run_locally(folder: Path, dataset: str, lost: set[tuple[int, int]], **more: object) -> dict:
    """The result of the same run on the local engine, where some (round, client) fail."""
    folder.mkdir()
    config = Config.from_mapping(settings(folder, dataset) | more)
    LOST.clear()
    LOST.update(lost)
    with LocalGrid("tests.strategies.federation:app", config.clients) as grid:
        server_app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config.flat()))
    return json.loads((folder / "out.json").read_text())


def toml(values: dict[str, object]) -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def compare(deployed: dict, local: dict) -> None:
    for a, b in zip(deployed["rounds"], local["rounds"], strict=True):
        for tag in ("train/loss", "eval/loss", "comm/uplink_bytes", "comm/clients", "comm/failures"):
            assert a.get(tag) == b.get(tag), (a["round"], tag)
    assert deployed["summary"]["weights-hash"] == local["summary"]["weights-hash"]


def test_a_deployment_gives_the_same_bits_as_the_local_engine(tmp_path: Path, tiny_dataset: str) -> None:
    with deployment(tmp_path, 3, toml(settings(tmp_path, tiny_dataset))) as script:
        assert script.wait(1000) == 0, (tmp_path / "log").read_text()
        wait_until(lambda: not marked(f"FLWR_HOME={tmp_path / 'flwr'}"), 60)
    compare(json.loads((tmp_path / "out.json").read_text()), run_locally(tmp_path / "local", tiny_dataset, set()))


def test_a_supernode_killed_between_two_rounds_costs_only_its_clients_turn(tmp_path: Path, tiny_dataset: str) -> None:
    def rounds() -> list[str]:
        return [row["round"] for file in tmp_path.glob("runs/*/rounds.csv") for row in csv.DictReader(file.open())]

    with deployment(tmp_path, 3, toml(settings(tmp_path, tiny_dataset))) as script:
        wait_until(lambda: "1" in rounds() or script.poll() is not None, 1000)
        # Its client of round 2 needs seconds to start; it cannot have answered yet.
        os.kill(supernode(tmp_path, 1), signal.SIGKILL)
        assert script.wait(1000) == 0, (tmp_path / "log").read_text()
    deployed = json.loads((tmp_path / "out.json").read_text())
    assert [r.get("comm/failures", 0) for r in deployed["rounds"]] == [0, 0, 1]
    compare(deployed, run_locally(tmp_path / "local", tiny_dataset, {(2, 1)}))
    (log,) = tmp_path.glob("runs/*/log.txt")
    (line,) = [line for line in log.read_text().splitlines() if "client 1 failed" in line]
    assert "round 2: client 1 failed: Error: Node Unavailable" in line


def test_a_run_whose_superlink_and_supernodes_are_killed_goes_on_with_others(tmp_path: Path, tiny_dataset: str) -> None:
    """Without a compressor, because clients on a SuperLink lose their residuals, and the log says so."""
    more = {"rounds": 4, "compressor": "none", "checkpoint-every": 1}
    values = settings(tmp_path, tiny_dataset) | more
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with deployment(tmp_path / "first", 3, toml(values)) as script:
        wait_until(lambda: list(tmp_path.glob("runs/*/checkpoint/2.json")) or script.poll() is not None, 1000)
        for pid in marked(f"FLWR_HOME={tmp_path / 'first' / 'flwr'}"):
            os.kill(pid, signal.SIGKILL)
    (folder,) = tmp_path.glob("runs/*")
    assert not (tmp_path / "out.json").exists()
    with deployment(tmp_path / "second", 3, toml(values | {"resume": str(folder)})) as script:
        assert script.wait(1000) == 0, (tmp_path / "second" / "log").read_text()
    assert "goes on after round 2" in (tmp_path / "second" / "log").read_text()
    assert "the states of 3 clients are not in the checkpoint" in (folder / "log.txt").read_text()
    local = run_locally(tmp_path / "local", tiny_dataset, set(), **more)
    compare(json.loads((tmp_path / "out.json").read_text()), local)
