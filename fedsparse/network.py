"""A clock for links that this machine does not have: how long a round would take over the clients' networks.

A client's round is its download, its computation and its upload, one after the other, with the latency once each way;
a cohort's is that of its slowest client. The bytes are the real ones.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedsparse.seeds import derive_seed

MOST_SIGMA = 10  # one client in six is then more than 20,000 times slower than the median
SPREADS = {"uniform": "uniform:LOW:HIGH", "lognormal": "lognormal:MEDIAN:SIGMA"}


@dataclass(frozen=True)
class Quantity:
    """A number, or a distribution of it over clients: ``10``, ``uniform:5:20``, ``lognormal:10:0.5``."""

    kind: str
    first: float
    second: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Quantity":
        """Read what the user wrote.

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
        if not known or not (first > 0 and math.isfinite(sum(rest, first)) and all(r >= 0 for r in rest)):
            raise ValueError(f"should be a number above 0, {' or '.join(SPREADS.values())}")
        return cls(kind, first, *rest)

    def draw(self, rng: np.random.Generator) -> float:
        """One client's value."""
        if self.kind == "uniform":
            return float(rng.uniform(self.first, self.second))
        return self.first * math.exp(self.second * rng.standard_normal()) if self.kind == "lognormal" else self.first


@dataclass(frozen=True)
class Network:
    """The clients' links. An empty speed or latency costs nothing.

    Args:
        uplink_mbps, downlink_mbps: megabits (10^6) a second; a :class:`Quantity` as text.
        latency_ms: milliseconds one way; likewise.
        seed: every client keeps its link for the whole run.
    """

    uplink_mbps: str
    downlink_mbps: str
    latency_ms: str
    seed: int

    def __bool__(self) -> bool:
        return bool(self.uplink_mbps or self.downlink_mbps or self.latency_ms)

    def seconds(self, client: int, *, downlink: int, uplink: int, compute: float) -> float:
        """What a client's round takes: bytes down, ``compute`` seconds, bytes up."""
        rng = np.random.default_rng(derive_seed(self.seed, "network", partition_id=client))
        up, down, latency = (
            Quantity.parse(text).draw(rng) if text else 0.0
            for text in (self.uplink_mbps, self.downlink_mbps, self.latency_ms)
        )
        transfer = sum(8e-6 * size / speed for size, speed in ((uplink, up), (downlink, down)) if speed)
        return 2e-3 * latency + transfer + compute


class SimulatedClock:
    """Seconds that a round would take over the clients' links: those of its slowest client.

    Args:
        network: the links.
        compute_seconds: of every client; 0 takes the measured ones.
        deadline: seconds after which a client is too late; 0 for never.

    Attributes:
        seconds: of the round so far; the deadline at most, where there is one.
    """

    def __init__(self, network: Network, compute_seconds: float, deadline: float) -> None:
        self.network, self.compute_seconds, self.deadline = network, compute_seconds, deadline
        self.seconds = 0.0

    def __bool__(self) -> bool:
        return bool(self.network or self.compute_seconds)

    def begin(self) -> None:
        """A new round."""
        self.seconds = 0.0

    def late(self, client: int, *, downlink: int, uplink: int, measured: float) -> str:
        """Advance by a client's round; why its update comes too late, or an empty text.

        Args:
            downlink, uplink: bytes that it received and sent.
            measured: seconds of its computation.
        """
        if not self:
            return ""
        compute = self.compute_seconds or measured
        seconds = self.network.seconds(client, downlink=downlink, uplink=uplink, compute=compute)
        slowest = max(self.seconds, seconds)
        self.seconds = min(slowest, self.deadline) if self.deadline else slowest
        late = self.deadline and seconds > self.deadline
        return f"late on the simulated network: {seconds:.1f} s, round-deadline = {self.deadline:g} s" if late else ""
