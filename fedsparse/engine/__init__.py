"""Where a run happens: Flower's Grid inside this process, or `flwr run` as a child."""

from fedsparse.engine.local_grid import LocalGrid

__all__ = ["LocalGrid"]
