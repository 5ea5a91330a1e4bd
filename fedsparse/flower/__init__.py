"""For other people's Flower apps: two lines that make their uplink small, and a runner.

    app = ClientApp(mods=[CompressMod("eden")])
    strategy = CompressedStrategy(FedAvg())

Each name below is imported when it is first used: a client needs no server, and an app of NumPy's no torch before its
first round.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsparse.flower.app_runner import run_app
    from fedsparse.flower.compress_mod import CompressMod
    from fedsparse.flower.compressed_strategy import CompressedStrategy
    from fedsparse.flower.robust_fedavg import RobustFedAvg

_PLACES = {
    "CompressMod": "fedsparse.flower.compress_mod",
    "CompressedStrategy": "fedsparse.flower.compressed_strategy",
    "RobustFedAvg": "fedsparse.flower.robust_fedavg",
    "run_app": "fedsparse.flower.app_runner",
}

__all__ = ["CompressMod", "CompressedStrategy", "RobustFedAvg", "run_app"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"fedsparse.flower has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)
