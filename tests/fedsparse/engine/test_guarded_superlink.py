"""What keeps others out of a SuperLink."""

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from fedsparse.engine.guarded_superlink import Guard

NODE, RUN = "/v1/fleet/pull-messages", "/v1/control/start-run"


@contextmanager
def server(supernodes: bool) -> Iterator[Callable[[str], int]]:
    """A guarded server; yields the status that it answers to a request for a path."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Guard(PlainTextResponse("hello"), supernodes), log_level="error", ws="none")
    guarded = uvicorn.Server(config)
    thread = threading.Thread(target=guarded.run, args=([listener],))
    thread.start()

    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{listener.getsockname()[1]}{path}") as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    while not guarded.started:
        time.sleep(0.01)
    try:
        yield status
    finally:
        guarded.should_exit = True
        thread.join()


@pytest.mark.parametrize("supernodes", [True, False])
def test_another_user_may_ask_for_what_a_supernode_asks_for_and_nothing_else(
    supernodes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        NODE,
        RUN,
        f"{NODE}/../../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/",
        "/health",
    ]
    with server(supernodes) as status:
        assert [status(path) for path in asked] == [200] * 6
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        assert [status(path) for path in asked] == [200 if supernodes else 403, *[403] * 5]
