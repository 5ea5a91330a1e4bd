"""Privacy: what the released weights may tell of any one client, and what the server sees of each."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.config.settings import Settings


class PrivacySettings(Settings):
    """Privacy: what the released weights may tell of any one client, and what the server sees of each."""

    dp_noise: Annotated[float, Field(ge=0.05, le=1e6)] | Literal["off"] = "off"
    """Client-level differential privacy: standard deviation of the noise in a round's sum of updates, in multiples of
    dp-clip."""
    dp_epsilon: Annotated[float, Field(gt=0, le=1000)] | Literal["off"] = "off"
    """Client-level differential privacy, with the dp-noise whose epsilon is this one after all rounds."""
    dp_delta: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    """Delta of the guarantee (epsilon, delta); auto: clients to the power of -1.1."""
    dp_clip: float = Field(1.0, gt=0, le=1e30)
    """Longest update (L2 norm) that counts whole; a longer one is scaled down to it."""
    dp_noise_by: Literal["server", "clients"] = "server"
    """Who adds the noise. clients: each adds so much that the sum of min-replies replies has enough; one reply alone,
    which the server sees, has less."""
    secure_aggregation: bool = False
    """The server sees the sum of a cohort's updates alone (compressors none, and randomk with shared-support)."""
    secure_limit: float = Field(1.0, ge=1e-30, le=1e6)
    """secure-aggregation: the largest magnitude of a value of an update, times the client's samples as a share of the
    largest client's. What is above is cut off, and stays in the residual if there is one."""
    secure_bits: int = Field(16, ge=2, le=16)
    """secure-aggregation: bits of such a value; it travels in log2 of clients-per-round bits more."""

    @property
    def is_private(self) -> bool:
        """Whether the run is differentially private."""
        return self.dp_noise != "off" or self.dp_epsilon != "off"

    @property
    def noise_by_clients(self) -> bool:
        """Whether the run is differentially private by noise of the clients."""
        return self.is_private and self.dp_noise_by == "clients"

    @property
    def noise_by_server(self) -> bool:
        """Whether the run is differentially private by noise of the server."""
        return self.is_private and self.dp_noise_by == "server"
