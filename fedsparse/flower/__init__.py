"""For Flower apps that know nothing of this project.

Each name below is imported when it is first used, because a client's process needs no server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsparse.flower.app_runner import run_app

_PLACES = {
    "run_app": "fedsparse.flower.app_runner",
}

__all__ = ["run_app"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"fedsparse.flower has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)
