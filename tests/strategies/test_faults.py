"""Clients that fail at the worst moment: after saving their state, before their reply."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedsparse.clients.client_app import app as client_app
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.experiment import Experiment
from fedsparse.strategies.server_app import make_strategy
from tests.strategies.faulty import ROUND, VICTIM
from tests.strategies.federation import binding_of

REASONS = {
    "raise": "client 0: ValueError: as told",
    "die": "client 0: its worker process died: killed by signal 9, perhaps out of memory",
    "hang": "client 0: it did not answer within client-timeout = 10 s",
}


@pytest.mark.parametrize("fault", REASONS)
def test_an_update_whose_reply_was_lost_arrives_once_with_the_next(
    fault: str, tiny_dataset: str, tmp_path: Path
) -> None:
    settings = {"clients": 2, "clients-per-round": 2, "rounds": 3, "compressor": "topk", "density": 1.0}
    config = Config.from_mapping(settings | {"values": "f32", "dataset": tiny_dataset, "name": fault})
    with LocalGrid(
        "tests.strategies.faulty:app", 2, workers=2, client_timeout=10.0 if fault == "hang" else 0.0
    ) as grid:
        strategy = make_strategy(experiment := Experiment(config), grid.get_node_ids(), grid)
        strategy.cohort.state_folder = str(tmp_path)
        arrays = strategy.broadcast(1)
        for round in (1, 2, 3):
            messages = strategy.configure_train(round, arrays, {}, grid)
            replies = grid.send_and_receive(messages)
            if round < 3:
                arrays, _ = strategy.aggregate_train(round, replies)
            if round == ROUND:
                assert strategy.cohort.tally.failures == [REASONS[fault]]
                with np.load(tmp_path / f"{VICTIM}/{ROUND}.npz") as state:
                    lost = decode(state["payload"].tobytes(), experiment.layout).to_dense()
    messages[VICTIM].content["task"]["state-folder"] = ""  # the same round by a client without state
    fresh = client_app(messages[VICTIM], Context(1, VICTIM, {"partition-id": VICTIM}, RecordDict(), {}))
    third, sent = (
        decode(r.content["arrays"]["update"].data, experiment.layout, binding_of(messages[VICTIM])).to_dense()
        for r in (fresh, replies[VICTIM])
    )
    assert lost.any()
    np.testing.assert_array_equal(sent, lost + third)
