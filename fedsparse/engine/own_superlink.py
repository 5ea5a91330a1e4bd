"""flower-superlink that answers its own user alone: `python -m fedsparse.engine.own_superlink` with the same flags.

Flower's SuperLink authenticates nobody on loopback, so that every user of the machine could run an app in it, with the
rights of the user who started it. Linux tells to which user each connection within the machine belongs.
"""

import os
import socket
from pathlib import Path

import uvicorn
from flwr.superlink.cli import flower_superlink
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

CONNECTIONS = Path("/proc/net/tcp")
"""Both ends of this machine's IPv4 connections, a line each: number, own address, other address, ..., user (8th)."""


class OwnUserOnly:
    """Refuses every request from a process of another user, before Flower sees it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or user_of(scope["client"], scope["server"]) == os.getuid():
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("this SuperLink answers its own user alone\n", 403)(scope, receive, send)


def user_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The id of the user whose process holds the client's end of a connection; None if there is no such connection."""
    ends = [_as_in_table(*client), _as_in_table(*server)]
    for line in CONNECTIONS.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return int(fields[7])
    return None


def _as_in_table(host: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"


if __name__ == "__main__":
    if CONNECTIONS.exists():
        serve = uvicorn.run
        # Without proxy_headers, because a header could name another connection as the client's.
        uvicorn.run = lambda app, **settings: serve(OwnUserOnly(app), **settings, proxy_headers=False)
    flower_superlink()
