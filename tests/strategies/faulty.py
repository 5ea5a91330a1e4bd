"""The project's own client; in round 2 one fails as its run's name says, after all its work and before its reply."""

import os
import signal
import time

from flwr.app import Context, Message

from clients.app import app as client_app

VICTIM, ROUND = 0, 2


def app(message: Message, context: Context) -> Message:
    reply: Message = client_app(message, context)
    if (context.node_id, message.content["task"]["round"]) == (VICTIM, ROUND):
        match message.content["config"]["name"]:
            case "raise":
                raise ValueError("as told")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(600)
    return reply
