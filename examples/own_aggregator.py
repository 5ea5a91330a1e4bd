"""An aggregator of one's own: the median over the clients that sent a coordinate.

    python main.py --aggregator examples/own_aggregator.py:Median --compressor none

One object is made for every round. It is given one decoded update at a time, and in the end gives the one update that
the server's optimizer takes.
"""

import torch


class Median:
    def __init__(self, size, mask):
        self.updates = []

    def add(self, update, samples, mask=None):
        """A coordinate that the client did not send is absent: NaN, which the median leaves out."""
        dense = torch.full((update.layout.size,), float("nan"))
        for segment in update.segments:
            part = dense[segment.start : segment.start + segment.size]
            part[slice(None) if segment.indices is None else segment.indices] = torch.tensor(segment.values)
        self.updates.append(dense)

    def result(self):
        """The cohort's update, float32; 0 where no client sent anything."""
        return torch.stack(self.updates).nanmedian(dim=0).values.nan_to_num(0.0)
