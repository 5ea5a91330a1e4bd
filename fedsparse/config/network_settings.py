"""The simulated network: seconds that a round would take over such links, beside the real ones."""

from pydantic import Field, ValidationInfo, field_validator

from fedsparse.config.settings import Settings
from fedsparse.network import Quantity


class NetworkSettings(Settings):
    """The simulated network: seconds that a round would take over such links, beside the real ones."""

    uplink_mbps: str = ""
    """Megabits a second that a client uploads: a number, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA over clients."""
    downlink_mbps: str = ""
    """Megabits a second that a client downloads; likewise."""
    latency_ms: str = ""
    """Milliseconds one way; likewise, and 0 too."""
    compute_seconds: float = Field(0.0, ge=0)
    """Seconds of a client's computation on the simulated clock; 0 takes the measured ones."""
    round_deadline: float = Field(0.0, ge=0)
    """Simulated seconds after which a client's update comes too late; 0 for never. It needs compute-seconds."""

    @field_validator("uplink_mbps", "downlink_mbps", "latency_ms")
    @classmethod
    def _check_quantity(cls, text: str, info: ValidationInfo) -> str:
        if text:
            Quantity.parse(text, zero=info.field_name == "latency_ms")
        return text
