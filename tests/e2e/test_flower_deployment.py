"""Somebody's Flower app with the two lines, on a SuperLink and SuperNodes on loopback."""

import json
from pathlib import Path

import pytest

from tests.e2e.deployment import deployment, started_again, supernode, wait_until
from tests.fedsparse.flower.somebodys_app import PYPROJECT, write_app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZE, ROUNDS = 20_000, 4
SERVER = """
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from fedsparse.flower import CompressedStrategy

app = ServerApp()

class Notes(FedAvg):
    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        self.answered = [reply.metadata.src_node_id for reply in replies if reply.has_content()]
        self.failed = sum(reply.has_error() for reply in replies)
        return super().aggregate_train(server_round, replies)

@app.main()
def main(grid, context):
    folder, rounds = Path(context.run_config["folder"]), []
    strategy = CompressedStrategy(Notes(fraction_evaluate=0.0, min_available_nodes=3), downlink="topk")

    def evaluate(round, arrays):
        loss = float(np.square(arrays["0"].numpy() - 1).mean())
        if round:
            both = {"up": strategy.uplink_bytes, "down": strategy.downlink_bytes}
            rounds.append({"loss": loss, "answered": strategy.answered, "failed": strategy.failed, **both})
        (folder / "rounds.json").write_text(json.dumps(rounds))
        if round == 2:  # until the SuperNode that was started again is there
            while set(grid.get_node_ids()) <= set(rounds[0]["answered"]):
                time.sleep(0.2)

    start = ArrayRecord([np.zeros(20_000, np.float32)])
    strategy.start(grid, start, num_rounds=4, evaluate_fn=evaluate)
"""
CLIENT = """
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from fedsparse.flower import CompressMod

app = ClientApp(mods=[CompressMod("topk", density=0.02)])

@app.train()
def train(message, context):
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    wanted = np.random.default_rng(context.node_config["partition-id"]).pareto(1, weights.shape) < 9
    new = ArrayRecord([(weights + 0.5 * wanted * (1 - weights)).astype(np.float32)])
    return Message(RecordDict({"arrays": new, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)
"""


def test_a_run_with_the_two_lines_goes_on_when_a_supernode_is_killed_and_started_again(tmp_path: Path) -> None:
    config = PYPROJECT.replace("rounds = 2", 'folder = ""').replace("wrapper.app", "app")
    app = write_app(tmp_path / "app", pyproject=config, strategies=SERVER, client=CLIENT)
    told = tmp_path / "rounds.json"

    def rounds() -> list[dict]:
        return json.loads(told.read_text() or "[]") if told.exists() else []

    with deployment(tmp_path, 3, f'folder="{tmp_path}"', app) as script:
        wait_until(lambda: len(rounds()) == 1 or script.poll() is not None, 300)
        assert script.poll() is None, (tmp_path / "log").read_text()
        # Its client of round 2 needs seconds to start; it cannot have answered yet.
        again = started_again(supernode(tmp_path, 1))
        try:
            assert script.wait(300) == 0, (tmp_path / "log").read_text()
        finally:
            again.kill()
            again.wait()
    done = rounds()
    assert len(done) == ROUNDS
    assert [len(round["answered"]) for round in done[:2]] == [3, 2]
    assert set(done[-1]["answered"]) - set(done[0]["answered"])  # a SuperNode that starts again gets another id
    assert done[-1]["loss"] < done[0]["loss"] < 1
    assert sum(len(round["answered"]) for round in done) >= 3 * ROUNDS - 3
    assert done[-1]["up"] < 4 * SIZE * 3 * ROUNDS / 20
