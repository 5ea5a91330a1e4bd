"""Your own aggregator: the median of each coordinate, over the clients that sent it.

    python main.py --aggregator examples/own_aggregator.py:Median --compressor none

The server makes a new object for every round, adds one decoded update at a time, and gives the result to the server
optimizer.
"""

import torch


class Median:
    def __init__(self, size, mask):
        self.updates = []

    def add(self, update, samples, mask=None):
        """A coordinate that the client did not send becomes NaN, because nanmedian leaves NaN out."""
        dense = torch.full((update.layout.size,), float("nan"))
        for segment in update.segments:
            part = dense[segment.start : segment.start + segment.size]
            part[slice(None) if segment.indices is None else segment.indices] = torch.tensor(segment.values)
        self.updates.append(dense)

    def result(self):
        """The cohort's update, float32; 0 for a coordinate that no client sent."""
        return torch.stack(self.updates).nanmedian(dim=0).values.nan_to_num(0.0)
