"""The project's ClientApp, but in round 2 one client fails between its work and its reply, as the run's name says."""

from flwr.app import Context, Message

from fedsparse.clients.client_app import app as client_app
from tests.fedsparse.engine.obedient import fail

VICTIM, ROUND = 0, 2


def app(message: Message, context: Context) -> Message:
    reply: Message = client_app(message, context)
    if (context.node_id, message.content["task"]["round"]) == (VICTIM, ROUND):
        fail(message.content["config"]["name"])
    return reply
