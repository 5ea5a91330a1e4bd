"""Where a run happens: Flower's Grid inside this process, or `flwr run` as a child."""

from fedsparse.engine.errors import RunFailed
from fedsparse.engine.local import LocalGrid

__all__ = ["LocalGrid", "RunFailed"]
