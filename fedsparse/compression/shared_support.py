"""The coordinates that all clients of a round send, which no client's data decides."""

import numpy as np

from fedsparse.compression.budgets import proportional, warmup_density
from fedsparse.compression.codec import UpdateCodec
from fedsparse.compression.indices import draw


def shared_support(codec: UpdateCodec, round: int, seed: int) -> np.ndarray:
    """The coordinates of the parameters in every payload of this round: int64, sorted.

    Args:
        codec: of a ``seeded`` selection, with counts in proportion to the sizes of the parts.
        seed: the ``support`` that the clients encode with.
    """
    sizes = np.array([stop - start for start, stop in codec.ranges])
    counts = proportional(sizes, warmup_density(codec.density, round, codec.warmup_rounds))
    parts = enumerate(zip(codec.ranges, counts.tolist(), strict=True))
    return np.concatenate([draw(seed, i, k, stop - start) + start for i, ((start, stop), k) in parts])
