"""Trust: what the server accepts from its clients."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.config.settings import Settings


class TrustSettings(Settings):
    """Trust: what the server accepts from its clients."""

    max_update_norm: Annotated[float, Field(gt=0, le=1e30)] | Literal["auto", "off"] = "auto"
    """Longest update (L2 norm of its weights) that the server accepts; auto: 10 times the median of the last rounds'
    updates; off: no limit."""
    min_replies: int = Field(1, ge=1)
    """Replies that a round needs; with fewer, up to two more cohorts are asked, and then the run ends."""
