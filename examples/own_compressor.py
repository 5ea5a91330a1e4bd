"""A compressor of one's own: whole blocks of neighbouring weights, those of the largest norm.

    python main.py --compressor examples/own_compressor.py:BlockTopK --density 0.05

It only says which coordinates travel. Error feedback, value and index coding, and counting are the codec's, so that
--values, --scope and the rest work with it as with any other.
"""

import numpy as np
import torch

BLOCK = 16


class BlockTopK:
    def indices(self, vector, parts, memory, seed):
        """For each part (start, stop, k) of the vector, update and residual together: which coordinates to send."""
        return [self.blocks(vector[start:stop], k) + start for start, stop, k in parts]

    def blocks(self, part, k):
        blocks = -(-len(part) // BLOCK)
        padded = torch.zeros(blocks * BLOCK)
        padded[: len(part)] = torch.as_tensor(part)
        norms = padded.view(blocks, BLOCK).norm(dim=1)
        best = norms.topk(max(1, k // BLOCK)).indices.sort().values.numpy()
        chosen = (best[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        return chosen[chosen < len(part)]
