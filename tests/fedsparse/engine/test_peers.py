"""To which user the other end of a connection belongs."""

import os
import socket

import pytest

from fedsparse.engine.peers import user_of, users_are_known

pytestmark = pytest.mark.skipif(not users_are_known(), reason="this system does not tell who connects")


def test_a_connection_belongs_to_its_user_until_it_is_closed() -> None:
    """The table gives every closed connection to root; whoever sends a request and is gone must not pass for root."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        client.sendall(b"a request")
        accepted, peer = server.accept()
        with accepted:
            assert user_of(peer, server.getsockname()) == os.getuid()
            client.close()
            assert user_of(peer, server.getsockname()) is None


def test_a_connection_that_is_not_on_this_machine_belongs_to_no_user() -> None:
    assert user_of(("192.0.2.1", 40000), ("127.0.0.1", 9091)) is None
