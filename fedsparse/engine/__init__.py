"""The two engines: LocalGrid, which is Flower's Grid inside this process, and `flwr run` as a child process."""

from fedsparse.engine.local_grid import LocalGrid

__all__ = ["LocalGrid"]
