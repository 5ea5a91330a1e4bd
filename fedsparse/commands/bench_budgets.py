"""Which compressor loses the least of an update within so many bytes."""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.compression.within import encode_within
from fedsparse.config import Config
from fedsparse.config.effects import has_effect
from fedsparse.vector import Layout

OWN_PARTS = {"values": "auto", "error-feedback": "auto", "unbiased": "auto"}
"""The settings that each compressor chooses for itself."""


class Point(NamedTuple):
    """A compressor at a budget; means over clients.

    Attributes:
        times: how many times less than the dense update the budget is.
        density: that fills the budget; NaN for a compressor whose bytes do not depend on one.
        bytes: of a payload.
        error: ||x - C(x)|| / ||x|| of one payload.
    """

    compressor: str
    times: float
    density: float
    bytes: float
    error: float


def at_budgets(
    name: str, config: Config, layout: Layout, updates: Sequence[np.ndarray], budgets: Iterable[float]
) -> list[Point]:
    """A compressor at each budget that it can meet, with the density solved for each update."""
    own = config.replace(compressor=name, **OWN_PARTS)
    codec, points = UpdateCodec(layout, **own.compression()), []
    for times in budgets:
        most, rows = 4 * layout.size / times, []
        for client, update in enumerate(updates):
            if has_effect("density", own):
                payload, stats, _ = encode_within(
                    codec, update, ClientState(), most, first=min(1.0, 1 / times), round=1, seed=client
                )
                density = stats["density"]
            else:
                payload, _ = codec.encode(update, ClientState(), round=1, seed=client)
                density = float("nan")
            lost = (codec.decode(payload).to_dense() - update)[: layout.parameters]
            error = np.linalg.norm(lost) / np.linalg.norm(update[: layout.parameters])
            rows.append((density, len(payload), float(error)))
        if max(length for _, length, _ in rows) <= most:
            points.append(Point(name, times, *map(statistics.mean, zip(*rows, strict=True))))
    return points


def recommended(points: Iterable[Point], layout: Layout, times: float, count: int = 3) -> list[Point]:
    """The compressors with the least errors within a budget, the best first; one of those that send the same.

    A payload of a smaller budget counts too, because more coordinates may mean a larger error where all of them get one
    magnitude, as in stc.
    """
    best: dict[str, Point] = {}
    for point in sorted(points, key=lambda point: point.error):
        is_new = (point.bytes, point.error) not in {(other.bytes, other.error) for other in best.values()}
        if point.bytes <= 4 * layout.size / times and is_new:
            best.setdefault(point.compressor, point)
    return list(best.values())[:count]
