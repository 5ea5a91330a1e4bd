"""What strategies CompressedStrategy refuses to be around, because they cannot work with compressed replies."""

from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    FedMedian,
    FedTrimmedAvg,
    MultiKrum,
    Strategy,
)

from fedsparse.errors import ConfigError
from fedsparse.flower.alike import strategies_in

VOTES = (FedMedian, FedTrimmedAvg, MultiKrum, Bulyan)
"""They compare clients coordinate by coordinate, so that a coordinate which a client did not send would be a vote of
0. (Krum is a MultiKrum.)"""
CLIPS = (DifferentialPrivacyClientSideFixedClipping, DifferentialPrivacyClientSideAdaptiveClipping)
"""Their clients clip what they send, and a residual that is added afterwards makes it longer again."""


def votes(strategy: Strategy) -> bool:
    """Whether every client must send every coordinate to a strategy."""
    return any(isinstance(each, VOTES) for each in strategies_in(strategy))


def check_strategy(strategy: Strategy, every_coordinate: bool) -> None:
    """Refuse a strategy that cannot work with compressed replies, whatever strategies are around it.

    Raises:
        ConfigError: one line that says why.
    """
    if not isinstance(strategy, Strategy):
        raise ConfigError(
            f"{type(strategy).__module__}.{type(strategy).__name__} is no strategy of Flower's Message API "
            "(flwr.serverapp.strategy), which CompressedStrategy needs: apps with server_fn, client_fn or a workflow "
            "run without it, with whole updates"
        )
    for inner in strategies_in(strategy):
        name = type(inner).__name__
        if isinstance(inner, VOTES) and not every_coordinate:
            raise ConfigError(
                f"{name} compares clients coordinate by coordinate, and would take what a client did not send for a "
                'vote of 0: use CompressedStrategy(RobustFedAvg("median")), of fedsparse.flower, or '
                "CompressedStrategy(..., every_coordinate=True) with clients that send every coordinate, such as "
                'CompressMod("eden")'
            )
        if isinstance(inner, CLIPS):
            raise ConfigError(
                f"{name}: a residual and a lossy coding change the norm of what the client clipped, so that its "
                "privacy bound would not hold: clip on the server, DifferentialPrivacyServerSideFixedClipping"
            )
        if name == "CompressedStrategy":
            raise ConfigError("CompressedStrategy is inside another strategy; it must be the outermost, and only once")
