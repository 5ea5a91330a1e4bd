"""A client's report as bytes: indices and values, in the wire format of an update.

Values are bfloat16, because only the order of their averages matters, but squared gradients need the range of float32.
"""

from dataclasses import replace

import numpy as np
import torch

from fedsparse.compression import wire
from fedsparse.compression.values import BF16
from fedsparse.sparsity.readjust import Report
from fedsparse.vector import Layout


def report_layout(layout: Layout) -> Layout:
    """The layout of a report about a model of ``layout``: its parameters, without its buffers."""
    return replace(layout, entries=layout.trainable, size=layout.parameters)


def encode_report(report: Report, layout: Layout, round: int) -> bytes:
    """The payload of a report about a model of ``layout``. Its values are rounded to the nearest bfloat16."""
    values = report.values.cpu().numpy()
    counts, codec = np.array([values.size]), BF16()
    body = codec.encode(values, counts, 0)
    segment = wire.Coded(layout.parameters, report.indices.cpu().numpy(), codec, body, counts)
    return wire.encode(report_layout(layout), round, [segment])


def decode_report(payload: bytes, layout: Layout, round: int, bound: int = 0) -> Report:
    """The report in a payload, which must be ``bound`` as in ``wire.decode``.

    Raises:
        PayloadError: the payload has any fault, or the report was made in another round.
    """
    decoded = wire.decode(payload, report_layout(layout), bound)
    if decoded.round != round:
        raise wire.PayloadError(f"a report of round {decoded.round}")
    if len(decoded.segments) != 1:
        raise wire.PayloadError(f"a report of {len(decoded.segments)} segments")
    segment = decoded.segments[0]
    # int32, as of all sets of most coordinates: see ``indices.positions``.
    indices = np.arange(segment.size, dtype=np.int32) if segment.indices is None else segment.indices
    return Report(torch.from_numpy(indices), torch.from_numpy(np.require(segment.values, requirements="W")))
