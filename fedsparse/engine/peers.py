"""Which user of this machine is at the other end of a connection within it. Linux tells."""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

CONNECTIONS = Path("/proc/net/tcp")
"""Both ends of the machine's IPv4 connections, a line each: number, own address, other address, state, ..., user."""
ESTABLISHED = "01"


def user_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The id of the user whose process holds the client's end; None if it is not on this machine, or over IPv6.

    None, too, if the client has closed its end. No process holds it any more, and the table calls that user 0, root.
    """
    with suppress(OSError):
        wanted = [_as_in_table(*client), _as_in_table(*server), ESTABLISHED]
        for line in CONNECTIONS.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1:4] == wanted:
                return int(fields[7])
    return None


def users_are_known() -> bool:
    """Whether this system tells to which user a connection belongs."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        return user_of(client.getsockname(), server.getsockname()) == os.getuid()


def _as_in_table(host: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
