"""What keeps other users of the machine out of the SuperLink of a run."""

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from fedsparse.engine.own_superlink import OwnUserOnly


@pytest.fixture
def address() -> Iterator[str]:
    """Where a server answers its own user."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(OwnUserOnly(PlainTextResponse("hello")), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_this_user_is_answered_and_another_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with urllib.request.urlopen(address) as answer:
        assert answer.read() == b"hello"
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address)
