"""The uplink budget: bytes in place of a density."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fedsparse.config.presets import FACTORIZATIONS
from fedsparse.errors import ConfigError
from fedsparse.units import bytes_of

if TYPE_CHECKING:
    from fedsparse.config import Config

EACH = "/client"


class UplinkBudget(NamedTuple):
    """Bytes of uplink: of a whole run, or of each client in each round."""

    bytes: float
    is_each: bool

    @classmethod
    def of(cls, text: str) -> UplinkBudget:
        """From ``1MB`` for a run, or ``8kB/client`` for each client in each round.

        Raises:
            ConfigError: it is neither.
        """
        amount = text.strip().removesuffix(EACH)
        try:
            return cls(bytes_of(amount, ""), amount != text.strip())
        except ConfigError:
            wanted = "bytes of the run, such as 1MB, or of each client in each round, such as 8kB/client"
            raise ConfigError(f"should be {wanted}") from None

    def share(self, uploads: int, spent: float = 0.0) -> float:
        """The bytes of one of the ``uploads`` that are still to come, after ``spent`` bytes."""
        return self.bytes if self.is_each else (self.bytes - spent) / uploads


def checked_budget(text: str) -> str:
    """The text of a setting; a mistake in it is a ConfigError."""
    if text:
        UplinkBudget.of(text)
    return text


def check_uplink_budget(config: Config) -> None:
    """Refuse settings by which no density, or one that is the same for all clients, decides the bytes of an update."""
    if not config.uplink_budget:
        return
    says, compressor = f"uplink-budget = {config.uplink_budget}", config.compression()["compressor"]
    if compressor in ("none", "threshold") or (compressor in FACTORIZATIONS and config.rank):
        raise ValueError(f"{says}: no density changes what compressor = {config.compressor} sends; leave it out")
    if config.topology_method in ("feddst", "prunefl", "ssfl"):
        raise ValueError(
            f"{says}: with topology = {config.topology_method}, clients send votes or scores of all weights"
        )
    for key, harmless, why in (
        ("upload-pruning", "off", "clients upload what pruning leaves"),
        ("warmup-rounds", 0, "every round has the same bytes"),
        ("shared-support", False, "each client needs a density of its own"),
        ("dp-noise", "off", "the density would tell of a client's update past the noise"),
        ("dp-epsilon", "off", "the density would tell of a client's update past the noise"),
    ):
        if (value := config.flat()[key]) != harmless:
            raise ValueError(f"{says}: {why}; leave {key} = {value} out")
