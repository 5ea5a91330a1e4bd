"""Workers share the data set that their parent process, which forks them, has read."""

import os
import subprocess
import sys
from pathlib import Path

from fedsparse.engine.fork_server import DATA

SCRIPT = """
from flwr.app import Message, MetricRecord, RecordDict
from fedsparse.engine import LocalGrid, fork_server
from fedsparse.data import load_dataset

def app(message, context):
    load_dataset("fashion-mnist-mini", "data")
    counts = {"hits": load_dataset.cache_info().hits}
    return Message(RecordDict({"metrics": MetricRecord(counts)}), reply_to=message)

if __name__ == "__main__":
    fork_server.start(["fedsparse.clients.preload"])
    with LocalGrid("script:app", clients=2, workers=2) as grid:
        messages = [Message(RecordDict(), node, "train") for node in (0, 1)]
        print([reply.content["metrics"]["hits"] for reply in grid.send_and_receive(messages)])
"""


def test_no_worker_reads_the_data_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {DATA: '["fashion-mnist-mini", "data"]', "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "[1, 1]\n", done.stderr
