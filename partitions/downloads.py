"""Whether an absent data set may be downloaded."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_allowed = ContextVar("downloads", default=True)


def allowed() -> bool:
    """Whether an absent data set is downloaded."""
    return _allowed.get()


@contextlib.contextmanager
def without_downloads() -> Iterator[None]:
    """In here an absent data set is an error."""
    before = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(before)
