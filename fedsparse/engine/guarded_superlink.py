"""flower-superlink behind a guard: `python -m fedsparse.engine.guarded_superlink` with flower-superlink's flags.

On one port Flower's SuperLink hears SuperNodes, whoever starts runs, and the processes of these runs. It can ask a key
of SuperNodes alone, so whoever reaches the port could run an app, with the rights of the SuperLink's user. With the
guard, processes of that user on that machine may ask for everything. All others may ask for what a SuperNode asks for,
and in a simulation, which has no SuperNodes, for nothing.
"""

import os
import re
import sys

import uvicorn
from flwr.superlink.cli import flower_superlink
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fedsparse.engine.peers import user_of, users_are_known

FLEET = re.compile("/v1/fleet/[a-z-]+")
"""What a SuperNode asks for."""


class Guard:
    """Refuses requests before Flower sees them.

    Args:
        app: Flower's.
        supernodes: whether there are SuperNodes.
    """

    def __init__(self, app: ASGIApp, supernodes: bool) -> None:
        self.app, self.supernodes = app, supernodes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_welcome(scope):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("this SuperLink hears its own user alone\n", 403)(scope, receive, send)

    def _is_welcome(self, scope: Scope) -> bool:
        if self.supernodes and FLEET.fullmatch(scope["path"]):
            return True
        return user_of(scope["client"], scope["server"]) == os.getuid()


if __name__ == "__main__":
    supernodes, serve = "--simulation" not in sys.argv, uvicorn.run
    if users_are_known():
        # Without proxy_headers, because a header could name another connection as the client's.
        uvicorn.run = lambda app, **settings: serve(Guard(app, supernodes), **settings, proxy_headers=False)
    elif any(argument.startswith("--host") for argument in sys.argv):
        sys.exit("this system does not tell who connects, so the SuperLink must not be heard beyond loopback")
    flower_superlink()
