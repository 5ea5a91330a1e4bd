"""One bit a value, and for each group the mean of its positive values and the mean of its negative values.

Seide, Fu, Droppo, Li and Yu, "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed
Training of Speech DNNs", Interspeech 2014, section 3.2 (threshold zero). The paper uses it with error feedback. Its
groups are the columns of a weight matrix; here a group is an entry of the layout, or the whole update (scope global).
"""

import numpy as np

from fedsparse.compression.arrays import blocks


class TwoMeans:
    code = 7

    def size(self, counts: np.ndarray) -> int:
        return 8 * counts.size + (int(counts.sum()) + 7) // 8

    def encode(self, values: np.ndarray, counts: np.ndarray, seed: int, unbiased: bool = False) -> bytes:
        means = np.zeros((counts.size, 2), "<f4")
        for mean, group in zip(means, np.split(values, counts.cumsum()[:-1]), strict=True):
            for side, part in enumerate((group[group >= 0], group[group < 0])):
                mean[side] = part.mean(dtype=np.float64) if part.size else 0.0
        return means.tobytes() + np.packbits(values < 0).tobytes()

    def decode(self, body: memoryview, counts: np.ndarray) -> np.ndarray:
        means = np.frombuffer(body[: 8 * counts.size], "<f4").astype(np.float32).reshape(-1, 2)
        negative = np.unpackbits(np.frombuffer(body[8 * counts.size :], np.uint8), count=int(counts.sum()))
        values, start = np.empty(negative.size, np.float32), 0
        for pair, count in zip(means, counts.tolist(), strict=True):
            part, sides = values[start : start + count], negative[start : start + count]
            for block in blocks(count):
                part[block] = pair[sides[block]]
            start += count
        return values
