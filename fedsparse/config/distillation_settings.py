"""Distillation: clients or the server also learn from scores."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.catalogue import DATASETS
from fedsparse.config.data_settings import FILES
from fedsparse.config.settings import OneOf, Settings


class DistillationSettings(Settings):
    """Distillation: clients or the server also learn from scores."""

    distill: Literal["off", "global", "not-true", "ensemble"] = "off"
    """Who teaches. global: the round's global model, each client, against drift (FedGKD); not-true: likewise, but only
    how the wrong classes compare (FedNTD); ensemble: the cohort's models together, the server's mean of them, on
    samples without labels (FedDF)."""
    distill_temperature: float = Field(1.0, gt=0, le=1e3)
    """Scores are divided by it before they are compared; above 1, small ones count more."""
    distill_weight: Annotated[float, Field(ge=0, le=1e6)] | Literal["auto"] = "auto"
    """Weight of the teacher's term in a client's loss, beside the task's loss at 1; FedGKD's gamma is twice it. auto:
    0.1 for global and 1 for not-true, as in their papers."""
    distill_data: Annotated[str, OneOf(("set-apart", *DATASETS), suffixes=FILES, folders=True)] = "set-apart"
    """ensemble: the samples of the server. set-apart: training samples that no client then holds; or those of another
    data set, named as for dataset, with samples of the same shape."""
    distill_samples: int = Field(1000, ge=1, le=10**9)
    """ensemble: how many samples the server has, without their labels."""
    distill_steps: int = Field(100, ge=0, le=10**9)
    """ensemble: steps of the server in each round, of batch-size samples; 0 for none, to see what the samples cost."""
    distill_lr: float = Field(1e-3, gt=0, le=1e6)
    """ensemble: learning rate of these steps, of Adam, falling to 0 by a cosine."""
