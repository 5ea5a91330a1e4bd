"""Writes a small Flower app, as somebody else would, whose modules have names that other programs' modules have too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsparse.flower.app_runner import AppRun

Run = Callable[..., AppRun]
"""Runs an app in a folder: the fixture ``run``."""

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
OLD_CLIENT = """
from flwr.client import ClientApp, NumPyClient

class Client(NumPyClient):
    def __init__(self, node): self.node = node
    def get_parameters(self, config): return [np.zeros(3)]
    def fit(self, parameters, config): return [parameters[0] + 1 + self.node], 10, {}
    def evaluate(self, parameters, config): return 0.5, 10, {}

def client_fn(context): return Client(context.node_config["partition-id"]).to_client()

class wrapper: app = ClientApp(client_fn)
import numpy as np
"""
OLD_SERVER = """
import numpy as np
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg

class Saving(FedAvg):
    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        np.save("final.npy", np.load(__import__("io").BytesIO(parameters.tensors[0])))
        return parameters, metrics

def server_fn(context):
    return ServerAppComponents(strategy=Saving(), config=ServerConfig(num_rounds=context.run_config["rounds"]))

app = ServerApp(server_fn=server_fn)
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


def final(home: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.load(home / "final.npy")
    return found


def rows(done: AppRun, kind: str) -> list[dict[str, Any]]:
    return [row for row in done.rows if row["kind"] == kind]
