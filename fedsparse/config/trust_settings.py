"""Trust: what the server accepts from its clients, and attacks to try it."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.config.settings import Settings


class TrustSettings(Settings):
    """Trust: what the server accepts from its clients, and attacks to try it."""

    max_update_norm: Annotated[float, Field(gt=0, le=1e30)] | Literal["auto", "off"] = "auto"
    """Longest update (L2 norm of its weights) that the server accepts; auto: 10 times the median of the last rounds'
    updates; off: no limit. With differential privacy, auto is off, because dp-clip is the limit."""
    byzantine: float = Field(0.4, ge=0, lt=0.5)
    """Largest share of a cohort that may be hostile, for median, trimmed-mean, krum and multi-krum. It should be above
    the share of all clients: of 10 clients from a federation of which 20 % are hostile, one cohort in three has 3 or
    more hostile ones."""
    attack: Literal["none", "sign-flip", "noise", "scale", "alie", "index-poison", "label-flip"] = "none"
    """What hostile clients do, in an experiment on this machine; never in a deployment."""
    attackers: float = Field(0.2, ge=0, le=1)
    """Share of the clients that are hostile."""
    min_replies: int = Field(1, ge=1)
    """Replies that a round needs; with fewer, up to two more cohorts are asked, and then the run ends."""
