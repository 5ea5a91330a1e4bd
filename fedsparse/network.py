"""A simulated clock: how long a round would take over the clients' network links.

A client downloads, computes and uploads, one after the other, with the latency once each way. A cohort's round takes as
long as its slowest client. The clock counts the bytes that really travel.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedsparse.seeds import derive_seed

MOST_SIGMA = 10  # at this sigma one client in six is over 20,000 times slower than the median
SPREADS = {"uniform": "uniform:LOW:HIGH", "lognormal": "lognormal:MEDIAN:SIGMA"}


@dataclass(frozen=True)
class Quantity:
    """A number, or a distribution of numbers over clients: ``10``, ``uniform:5:20``, ``lognormal:10:0.5``."""

    kind: str
    first: float
    second: float = 0.0

    @classmethod
    def parse(cls, text: str, zero: bool = False) -> "Quantity":
        """Read a setting's text.

        Args:
            zero: whether the number, LOW and MEDIAN may be 0.

        Raises:
            ValueError: one line that says what is allowed.
        """
        kind, *numbers = text.split(":") if ":" in text else ("fixed", text)
        try:
            first, *rest = (float(number) for number in numbers)
        except ValueError:
            first, rest = math.nan, []
        known = (kind == "fixed" and not rest) or (kind in SPREADS and len(rest) == 1)
        if kind == "uniform" and rest and rest[0] < first:
            raise ValueError("should be uniform:LOW:HIGH, the lower number first")
        if kind == "lognormal" and rest and rest[0] > MOST_SIGMA:
            raise ValueError(f"should be lognormal:MEDIAN:SIGMA, with SIGMA at most {MOST_SIGMA}")
        enough = first >= 0 if zero else first > 0
        if not known or not (enough and math.isfinite(sum(rest, first)) and all(r >= 0 for r in rest)):
            least = "of at least 0" if zero else "above 0"
            raise ValueError(f"should be a number {least}, {' or '.join(SPREADS.values())}")
        return cls(kind, first, *rest)

    def draw(self, rng: np.random.Generator) -> float:
        """One client's value."""
        if self.kind == "uniform":
            return float(rng.uniform(self.first, self.second))
        return self.first * math.exp(self.second * rng.standard_normal()) if self.kind == "lognormal" else self.first


@dataclass(frozen=True)
class Network:
    """The clients' links, which they keep for the whole run. An empty speed or latency costs no time.

    Args:
        uplink_mbps, downlink_mbps: megabits (10^6 bits) a second; a :class:`Quantity` as text.
        latency_ms: milliseconds one way; a :class:`Quantity` as text.
        seed: of the experiment; each client's link follows from it and the client's partition id.
    """

    uplink_mbps: str
    downlink_mbps: str
    latency_ms: str
    seed: int

    def __bool__(self) -> bool:
        """Whether any link costs time."""
        return bool(self.uplink_mbps or self.downlink_mbps or self.latency_ms)

    def seconds(self, client: int, *, downlink: int, uplink: int, compute: float) -> float:
        """How long a client's round takes, with ``downlink`` and ``uplink`` bytes and ``compute`` seconds."""
        rng = np.random.default_rng(derive_seed(self.seed, "network", partition_id=client))
        up, down, latency = (
            Quantity.parse(text, zero=True).draw(rng) if text else 0.0
            for text in (self.uplink_mbps, self.downlink_mbps, self.latency_ms)
        )
        transfer = sum(8e-6 * size / speed for size, speed in ((uplink, up), (downlink, down)) if speed)
        return 2e-3 * latency + transfer + compute


@dataclass
class SimulatedClock:
    """The simulated seconds of one round.

    Args:
        network: the clients' links.
        compute_seconds: how long every client's computation takes; 0 for the seconds that each client measured.
        deadline: seconds after which an update comes too late; 0 for no deadline.

    Attributes:
        seconds: the time of the slowest client so far, but at most the deadline; None before the first client, and
            always None when neither the links nor ``compute_seconds`` are set.
    """

    network: Network
    compute_seconds: float
    deadline: float
    seconds: float | None = None

    def add(self, client: int, *, downlink: int, uplink: int, measured: float) -> str:
        """Time one client of the round.

        Args:
            client: its partition id.
            downlink, uplink: the bytes that it received and sent.
            measured: the seconds that its computation really took.

        Returns:
            One line that says why its update comes too late; empty when it is in time.
        """
        if not self.network and not self.compute_seconds:
            return ""
        compute = self.compute_seconds or measured
        seconds = self.network.seconds(client, downlink=downlink, uplink=uplink, compute=compute)
        slowest = max(self.seconds or 0.0, seconds)
        self.seconds = min(slowest, self.deadline) if self.deadline else slowest
        if self.deadline and seconds > self.deadline:
            return f"late on the simulated network: {seconds:.1f} s, round-deadline = {self.deadline:g} s"
        return ""
