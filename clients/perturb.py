"""What a client does to its update for differential privacy, before anything encodes it."""

import math

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression import UpdateCodec
from fedsparse.compression.arrays import to_numpy
from fedsparse.compression.shared_support import shared_support
from fedsparse.config import Config
from fedsparse.privacy.noise import gaussian, secret_bits


def perturbed(vector: Tensor, codec: UpdateCodec, config: Config, round: int, noise: float) -> Tensor:
    """The client's update under differential privacy: float32, shape ``(layout.size,)``.

    Where the server adds the noise, it also cuts what it receives. The client cuts its update too if it keeps a
    residual, because that would grow for ever if updates were longer than what the server lets through.

    Where clients add the noise, the client keeps the coordinates that all clients of the round send, cuts them to
    ``dp-clip`` and adds its share. The noise is of bits that this client alone knows, and differs from run to run.

    Args:
        codec: will encode the update.
        noise: the noise multiplier of the sum of ``min_replies`` updates.
    """
    values, clip = to_numpy(vector), config.dp_clip
    if config.noise_by_server:
        return vector * shortening(values, clip) if codec.feedback.is_on else vector
    seed = config.support_seed(round)
    sent = slice(None) if seed is None or codec.compressor == "none" else shared_support(codec, round, seed)
    kept = values[sent].astype(np.float64)
    kept *= shortening(kept, clip)
    kept += noise * clip / math.sqrt(config.min_replies) * gaussian(len(kept), secret_bits)
    result = torch.zeros_like(vector)
    result[sent] = torch.from_numpy(kept).to(vector)
    return result


def shortening(values: np.ndarray, clip: float) -> float:
    """The factor that makes a vector at most ``clip`` long."""
    norm = float(np.linalg.norm(values.astype(np.float64)))
    return min(1.0, clip / norm) if norm else 1.0
