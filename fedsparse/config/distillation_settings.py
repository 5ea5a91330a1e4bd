"""Distillation: clients or the server also learn from scores."""

from typing import Literal

from pydantic import Field

from fedsparse.config.settings import Settings


class DistillationSettings(Settings):
    """Distillation: clients or the server also learn from scores."""

    distill: Literal["off", "global", "not-true", "ensemble"] = "off"
    """Who teaches. global: the round's global model, each client, against drift (FedGKD); not-true: likewise, but only
    how the wrong classes compare (FedNTD); ensemble: the cohort's models together, the server's mean of them, on
    samples without labels (FedDF)."""
    distill_temperature: float = Field(1.0, gt=0, le=1e3)
    """Scores are divided by it before they are compared; above 1, small ones count more."""
    distill_weight: float = Field(1.0, ge=0, le=1e6)
    """Weight of the teacher's term in a client's loss, beside the task's loss at 1; FedGKD's gamma is twice it."""
    distill_samples: int = Field(1000, ge=1, le=10**9)
    """ensemble: training samples that no client holds; the server has them without their labels."""
    distill_steps: int = Field(100, ge=1, le=10**9)
    """ensemble: steps of the server in each round, of batch-size samples."""
    distill_lr: float = Field(1e-3, gt=0, le=1e6)
    """ensemble: learning rate of these steps, of Adam, falling to 0 by a cosine."""
