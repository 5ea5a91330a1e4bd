"""A ClientApp that follows the order in its message."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
warm: list[bool] = []
meeting = threading.Barrier(2)


def fail(how: str) -> None:
    """Raise, die or hang; any other order does nothing."""
    match how:
        case "raise":
            raise ValueError("as told")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)


@app.train()
def train(message: Message, context: Context) -> Message:
    counter = context.state.config_records.get("counter", ConfigRecord({"calls": 0}))
    calls = int(counter["calls"]) + 1
    context.state["counter"] = ConfigRecord({"calls": calls})
    fail(order := message.content["order"]["do"])
    match order:
        case "start slowly" if not warm:
            warm.append(True)
            time.sleep(3)
        case "sleep":
            time.sleep(0.2)
        case "meet":
            meeting.wait(20)
        case "loop":
            while True:
                time.sleep(0.01)
    metrics = {"calls": calls, "pid": os.getpid(), "partition-id": int(context.node_config["partition-id"])}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def together(messages: Sequence[Message], contexts: Sequence[Context]) -> Callable[[Message, Context], Message]:
    if any(message.content["order"]["do"] == "raise together" for message in messages):
        raise ValueError("not together")

    def answer(message: Message, context: Context) -> Message:
        reply: Message = app(message, context)
        reply.content.metric_records["metrics"]["together"] = len(messages)
        return reply

    return answer
