"""The project's ClientApp, which also saves a copy of every message and reply."""

from typing import NamedTuple

from flwr.app import Context, Message

from fedsparse.clients.client_app import app as client_app
from fedsparse.clients.workbench import workbench
from fedsparse.vector import Layout
from tests.strategies.federation import binding_of


class Tap(NamedTuple):
    round: int
    weights: bytes
    payload: bytes
    samples: int
    layout: Layout
    bound: int


TAPPED: list[Tap] = []


def app(message: Message, context: Context) -> Message:
    reply = client_app(message, context)
    layout = workbench(tuple(message.content["config"].items())).model.layout
    TAPPED.append(
        Tap(
            message.content["task"]["round"],
            message.content["arrays"]["weights"].data,
            reply.content["arrays"]["update"].data,
            reply.content["metrics"]["num-examples"],
            layout,
            binding_of(message),
        )
    )
    return reply
