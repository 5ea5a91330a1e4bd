"""Flower's ServerApp and strategies. Adding one is one file and one line in STRATEGIES."""

from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg, RoundFailed
from strategies.fedavgm import FedAvgM
from strategies.fedprox import FedProx

STRATEGIES: dict[str, type[FedAvg]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedprox": FedProx,
}

__all__ = ["STRATEGIES", "FedAdam", "FedAvg", "FedAvgM", "FedProx", "RoundFailed"]
