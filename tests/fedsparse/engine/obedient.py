"""A ClientApp that does what its message says."""

import os
import signal
import time

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    counter = context.state.config_records.get("counter", ConfigRecord({"calls": 0}))
    calls = int(counter["calls"]) + 1
    context.state["counter"] = ConfigRecord({"calls": calls})
    match message.content["order"]["do"]:
        case "raise":
            raise ValueError("as told")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "sleep":
            time.sleep(0.2)
    metrics = {"calls": calls, "pid": os.getpid(), "partition-id": int(context.node_config["partition-id"])}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
