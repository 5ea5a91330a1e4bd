"""The two engines: LocalGrid, which is Flower's Grid inside this process, and `flwr run` as a child process."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsparse.engine.local_grid import LocalGrid

__all__ = ["LocalGrid"]


def __getattr__(name: str) -> Any:
    """Import LocalGrid, which takes torch and Flower, when it is asked for, because the fork server starts before."""
    if name != "LocalGrid":
        raise AttributeError(name)
    from fedsparse.engine.local_grid import LocalGrid

    return LocalGrid
