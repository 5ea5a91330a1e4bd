"""Federated learning with sparse communication.

    import fedsparse

    result = fedsparse.run(distribution="dirichlet", beta=0.1, rounds=20)

Each name below is imported when it is first used, so that ``import fedsparse`` costs nothing.

The packages ``fedsparse.clients``, ``fedsparse.strategies`` and ``fedsparse.partitions`` stand beside this one in a
checkout, and inside this one in an installed wheel. They have no name of their own, which a user's app may have too.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsparse.compression import ClientState, UpdateCodec
    from fedsparse.config import Config
    from fedsparse.errors import ConfigError, RunFailed
    from fedsparse.python_door import Result, run
    from fedsparse.vector import Layout

if not Path(__file__).with_name("clients").is_dir():  # a checkout
    __path__.append(str(Path(__file__).parents[1]))

_PLACES = {
    "run": "fedsparse.python_door",
    "Result": "fedsparse.python_door",
    "Config": "fedsparse.config",
    "ConfigError": "fedsparse.errors",
    "RunFailed": "fedsparse.errors",
    "UpdateCodec": "fedsparse.compression",
    "ClientState": "fedsparse.compression",
    "Layout": "fedsparse.vector",
}

__all__ = ["ClientState", "Config", "ConfigError", "Layout", "Result", "RunFailed", "UpdateCodec", "run"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"fedsparse has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)
