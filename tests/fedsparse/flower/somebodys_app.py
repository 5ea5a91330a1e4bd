"""Writes a small Flower app, as somebody else would, whose modules have names that other programs' modules have too."""

from pathlib import Path

PYPROJECT = """
[project]
name = "somebodys"
version = "1.0"

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "strategies:app"
clientapp = "clients.main:wrapper.app"

[tool.flwr.app.config]
rounds = 2
step = 0.5
client.order = "work"
"""

STRATEGIES = """
import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
import task

app = ServerApp()

@app.lifespan()
def lifespan(context):
    task.note("begin")
    yield
    task.note("end")

@app.main()
def main(grid, context):
    sizes = [Message(RecordDict(), node, "query.size") for node in grid.get_node_ids()]
    pushed = list(grid.push_messages(sizes))
    assert len(list(grid.pull_messages(pushed[:1]))) == 1
    assert len(list(grid.pull_messages(pushed))) == len(sizes) - 1
    strategy = FedAvg(fraction_train=0.5, fraction_evaluate=1.0)
    start = ArrayRecord([np.random.randn(3)])
    result = strategy.start(grid, start, num_rounds=context.run_config["rounds"])
    np.save("final.npy", result.arrays.to_numpy_ndarrays()[0])
"""

TASK = """
def note(what):
    with open("notes.txt", "a") as file:
        print(what, file=file)
"""

CLIENT = """
import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
import task

def mark(message, context, call_next):
    reply = call_next(message, context)
    if reply.content.metric_records:
        reply.content["metrics"]["marks"] = reply.content["metrics"].get("marks", 0) + 1
    return reply

class wrapper:
    app = ClientApp(mods=[mark, mark])

DRAWN = np.random.randn()

def reply(message, number, **metrics):
    arrays = ArrayRecord([np.full(3, number)])
    metrics = MetricRecord({"num-examples": 10, **metrics})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

@wrapper.app.train()
def train(message, context):
    node, order = context.node_config["partition-id"], context.run_config["client.order"]
    calls = context.state.config_records.setdefault("calls", ConfigRecord({"calls": 0}))
    calls["calls"] += 1
    round = message.content["config"]["server-round"]
    message.content["config"]["server-round"] = -1  # which no other client may see
    if order == "fail" or (order == "fail once" and calls["calls"] == 1 and not Path("failed").exists()):
        Path("failed").touch()
        raise ValueError("as told")
    if order == "die" and round == 2 and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    start = message.content["arrays"].to_numpy_ndarrays()[0].mean()
    drawn = np.random.randn() + random.random() + float(torch.rand(())) + DRAWN
    calls = calls["calls"]
    return reply(message, start + context.run_config["step"] * drawn + node * calls, calls=calls, round=round)

@wrapper.app.evaluate()
def evaluate(message, context):
    return reply(message, 0, loss=float(message.content["arrays"].to_numpy_ndarrays()[0].sum()))

@wrapper.app.query("size")
def size(message, context):
    return reply(message, 0, partitions=context.node_config["num-partitions"])
"""


def write_app(folder: Path, **replaced: str) -> Path:
    """The app in ``folder``; keywords name files, without their endings, that have another content."""
    (folder / "clients").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(replaced.get("pyproject", PYPROJECT))
    (folder / "strategies.py").write_text(replaced.get("strategies", STRATEGIES))
    (folder / "task.py").write_text(TASK)
    (folder / "clients" / "__init__.py").touch()
    (folder / "clients" / "main.py").write_text(replaced.get("client", CLIENT))
    return folder
