"""A threshold by bisection between the mean and the largest magnitude, kept for the rounds that follow.

Fang, Fu, Yang and Hsieh, "RedSync: Reducing Synchronization Bandwidth for Distributed Deep Learning Training System",
JPDC 2019, algorithm 3 (threshold binary search selection) and section 5.2.2 (reusing a threshold for five iterations).

The paper stops bisecting when what is left of the interval is a small part of it; with one outlier that is at once, and
published code then misses k by a factor of 54. Here it ends with a count within a third of k. A threshold is reused as
long as its count is: with error feedback, and a client that comes back after many rounds, a fixed five may be too long.
"""

import numpy as np

from fedsparse.compression.client_state import Array, ClientState, to_numpy
from fedsparse.compression.near import count, is_near, magnitudes_of, near_threshold, select_near
from fedsparse.compression.selection import Part, Selected, accumulate


class RedSync:
    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        vector = accumulate(update, state)
        old = state.memory.get("thresholds")
        reused = np.zeros(len(parts), np.float32) if old is None or len(old) != len(parts) else to_numpy(old)
        kept, indices = np.empty(len(parts), np.float32), []
        for i, (start, stop, k) in enumerate(parts):
            magnitudes = magnitudes_of(vector[start:stop])
            threshold = float(reused[i])
            if threshold == 0 or not is_near(count(magnitudes >= threshold), k):
                threshold = bisected(magnitudes, k)
            kept[i] = threshold
            indices.append(select_near(magnitudes, k, threshold) + start)
        state.memory["thresholds"] = kept
        return Selected(vector, indices)


def bisected(magnitudes: Array, k: int) -> float:
    """A threshold between the mean and the maximum of ``magnitudes``; below the mean where fewer than k reach it."""
    mean, largest = float(magnitudes.mean()), float(magnitudes.max())
    low = mean if count(magnitudes >= mean) >= k else 0.0
    return near_threshold(magnitudes, k, low + (largest - low) / 2, low, largest)
