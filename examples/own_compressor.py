"""Your own compressor: it selects the blocks of neighbouring weights with the largest norms.

    python main.py --compressor examples/own_compressor.py:BlockTopK --density 0.05

The compressor only selects coordinates. The codec does error feedback, value coding and index coding, so that --values,
--scope and other settings work as with any compressor.
"""

import numpy as np
import torch

BLOCK = 16


class BlockTopK:
    def indices(self, vector, parts, memory, seed):
        """The coordinates to send of each part (start, stop, k) of the vector, which is update plus residual."""
        return [self.blocks(vector[start:stop], k) + start for start, stop, k in parts]

    def blocks(self, part, k):
        blocks = -(-len(part) // BLOCK)
        padded = torch.zeros(blocks * BLOCK)
        padded[: len(part)] = torch.as_tensor(part)
        norms = padded.view(blocks, BLOCK).norm(dim=1)
        best = norms.topk(max(1, k // BLOCK)).indices.sort().values.numpy()
        chosen = (best[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        return chosen[chosen < len(part)]
