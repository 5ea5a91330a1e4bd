"""Local training: what a client does between two messages."""

from typing import Annotated, Literal

from pydantic import Field

from fedsparse.catalogue import OPTIMIZERS
from fedsparse.config.settings import OneOf, Settings


class TrainingSettings(Settings):
    """Local training: what a client does between two messages."""

    epochs: int = Field(1, ge=1, le=10**9)
    """Local epochs a round."""
    local_steps: int = Field(0, ge=0, le=10**9)
    """Local steps a round, of shuffled batches, whatever a client holds; 0: as many as the epochs have."""
    batch_size: int = Field(32, ge=1, le=2**31)
    """Samples a local step. With BatchNorm, a last batch of one sample joins the batch before it."""
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = "sgd"
    """Optimizer of the local steps. adamw decays no biases, normalisation and embeddings. torch.optim:RAdam would do
    too."""
    keep_moments: bool = False
    """Let each client keep its optimizer's moments until its next round, twice the model for adamw. They never travel.
    Without it, the optimizer starts anew in each round."""
    lr: float = Field(0.1, gt=0, le=1e6)
    """Learning rate of the local steps."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of the local SGD."""
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    """beta_2 of adamw; beta_1 is 0.9."""
    weight_decay: float = Field(0.0, ge=0, le=1e6)
    """Weight decay of the local optimizer; for sgd this is an L2 penalty."""
    clip_norm: float = Field(0.0, ge=0)
    """Largest norm of a local gradient; 0 leaves it alone."""
    lr_schedule: Literal["constant", "cosine", "step", "exponential"] = "cosine"
    """Learning rate over the rounds: cosine to 0; step: a tenth after half and again after three quarters of them;
    exponential: times lr-decay after every round."""
    lr_decay: float = Field(0.998, gt=0, le=1)
    """exponential: factor on the learning rate after every round."""
    lr_warmup_rounds: int = Field(0, ge=0)
    """Rounds in which the learning rate rises to that of the schedule."""
    lr_schedule_by: Literal["round", "step"] = "round"
    """Change the learning rate from round to round, or with every local step, as suits few rounds of many steps."""

    amp: Literal["off", "bf16", "fp16"] = "off"
    """Mixed precision of the local training; fp16 scales the loss, and counts the steps that overflow."""
    accumulate: int = Field(1, ge=1)
    """Pieces a batch is trained in, one after the other, to save memory; not with BatchNorm."""
    compile: bool = False
    """torch.compile the model, once a process (twice where two threads share a GPU); pays for long runs."""
    recompute: bool = False
    """Activation checkpointing: recompute pieces of the network in the backward pass to save memory."""
    recompute_segments: Annotated[int, Field(ge=1)] | Literal["blocks", "auto"] = "blocks"
    """Pieces that --recompute computes again, one at a time: each residual block; or so many of a chain of layers;
    auto: about the square root of its layers (Chen et al. 2016)."""
    cohort_batching: Literal["auto", "on", "off"] = "auto"
    """Train the clients of a cohort at once, weights stacked (local engine); auto: small models on a GPU."""
