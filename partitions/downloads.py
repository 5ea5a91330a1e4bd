"""Whether an absent data set may be downloaded, and whether the place that has it can be reached."""

import contextlib
import logging
import os
import urllib.request
from collections.abc import Iterator
from contextvars import ContextVar

_allowed = ContextVar("downloads", default=True)
TIMEOUT_SECONDS = 10.0


def allowed() -> bool:
    """Whether an absent data set is downloaded, and what is trained on it is kept."""
    return _allowed.get()


@contextlib.contextmanager
def without_downloads() -> Iterator[None]:
    """In here an absent data set is an error, and nothing is trained and kept."""
    before = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(before)


def reach_hub() -> None:
    """Find out whether Hugging Face's hub can be reached, because its libraries try for most of a minute.

    Raises:
        OSError: it cannot be reached.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    place = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    with urllib.request.urlopen(urllib.request.Request(place, method="HEAD"), timeout=TIMEOUT_SECONDS):
        pass
