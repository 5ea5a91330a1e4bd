"""The server's account of the uplink budget: what each update of a round may have."""

import logging
from collections.abc import Mapping

from fedsparse.checkpoint import State
from fedsparse.config import Config
from fedsparse.config.uplink_budget import UplinkBudget
from fedsparse.telemetry.progress import human_bytes

log = logging.getLogger("fedsparse")

FIRST = 0.01
"""The density that clients of round 1 try first."""
CLOSE = 0.05
"""The run says so where it misses the budget by a larger share."""


class UplinkShare:
    """Shares the budget between updates. What those of a round leave is for the rounds after it.

    Args:
        config: with an ``uplink_budget``.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.budget = config, UplinkBudget.of(config.uplink_budget)
        self.spent, self.uploads, self.density = 0.0, 0.0, FIRST
        self._is_told = False

    def told(self, round: int) -> dict[str, float]:
        """What the messages of a round say: the bytes of an update, and the density that its client tries first."""
        uploads = (self.config.rounds - round + 1) * self.config.clients_per_round
        return {"uplink-share": max(self.budget.share(uploads, self.spent), 0.0), "density": self.density}

    def spend(self, round: int, metrics: Mapping[str, float]) -> None:
        """Count what a round has uploaded, and say what the first one here chose and how the last one ended."""
        self.spent += (sent := metrics.get("comm/uplink_bytes", 0.0))
        self.uploads += (clients := metrics.get("comm/clients", 0.0))
        self.density = metrics.get("compress/density") or self.density
        says = f"uplink-budget = {self.config.uplink_budget}"
        if clients and not self._is_told:
            each = human_bytes(sent / clients)
            print(f"{says}: {each} a client in round {round}, at a density of {self.density:.3g}", flush=True)
            self._is_told = True
        planned = self.budget.bytes * (self.uploads if self.budget.is_each else 1)
        if round == self.config.rounds and abs(self.spent - planned) > CLOSE * planned:
            log.warning("%s: clients uploaded %s of %s", says, human_bytes(self.spent), human_bytes(planned))

    def state_dict(self) -> State:
        """What the next shares depend on."""
        return {"spent": self.spent, "uploads": self.uploads, "density": self.density}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self.spent, self.uploads, self.density = state["spent"], state["uploads"], state["density"]
