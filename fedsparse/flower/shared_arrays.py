"""Which arrays of a reply travel in a payload: client and server come to the same answer, each from what it has.

The arrays of a message and of its reply belong together by record and name. An array of floating-point numbers travels
in the payload, as the change since the message; what is left in the reply's ArrayRecord travels as it is.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from flwr.app import ArrayRecord

from fedsparse.flower.plain_arrays import is_float, read
from fedsparse.vector import Entry, Layout

Place = tuple[str, str]
"""An ArrayRecord's name in the message, and an Array's name in it."""


class Part(NamedTuple):
    """The arrays in a payload.

    Attributes:
        places: of the arrays, one for each entry of the layout.
        layout: of the payload. For all arrays of a PyTorch model it is the model's: see ``fedsparse.vector``.
    """

    places: list[Place]
    layout: Layout


class SharedArrays:
    """The arrays of one message, which its receiver and its sender both have.

    Args:
        records: the message's ArrayRecords by name.
    """

    def __init__(self, records: Mapping[str, ArrayRecord]) -> None:
        # The app may take the arrays out of its message's records, and this must keep them.
        self.records = {name: dict(record.items()) for name, record in records.items()}
        self._parts: dict[frozenset[Place], Part] = {}

    def twins(self, reply: Collection[str]) -> dict[str, str]:
        """The message's record that each record of a reply answers: of the same name, or where both have only one."""
        if len(reply) == len(self.records) == 1:
            return dict(zip(reply, self.records, strict=True))
        return {name: name for name in reply if name in self.records}

    @cached_property
    def values(self) -> dict[Place, np.ndarray]:
        """The arrays of floating-point numbers, none of them NaN or infinite, as views."""
        floats = {(r, k): read(array) for r, of in self.records.items() for k, array in of.items() if is_float(array)}
        return {place: values for place, values in floats.items() if np.isfinite(values).all()}

    @cached_property
    def room(self) -> dict[Place, tuple[float, str]]:
        """How large a change of each array may be, so that no sum is infinite; and the array's dtype."""
        most = {place: max(values.max(initial=0), -values.min(initial=0)) for place, values in self.values.items()}
        return {p: (float(np.finfo(v.dtype).max) - float(most[p]), str(v.dtype)) for p, v in self.values.items()}

    def part(self, chosen: Iterable[Place]) -> Part:
        """What a payload with the arrays at these places holds."""
        key = frozenset(chosen)
        if key not in self._parts:
            self._parts[key] = part_of({place: values for place, values in self.values.items() if place in key})
        return self._parts[key]


def part_of(arrays: Mapping[Place, np.ndarray]) -> Part:
    """What a payload with arrays of these shapes and dtypes holds: first weights, then running statistics."""
    places = sorted(arrays, key=is_running)
    several = len({record for record, _ in places}) > 1
    entries, start, parameters = [], 0, 0
    for record, name in places:
        shape, size = arrays[record, name].shape, arrays[record, name].size
        entries.append(Entry(f"{record}/{name}" if several else name, shape, start, size))
        start += size
        parameters = parameters if is_running((record, name)) else start
    return Part(places, Layout(tuple(entries), parameters, start))


def is_running(place: Place) -> bool:
    """Whether an array is a running statistic, such as BatchNorm's, which travels dense."""
    return place[1].rpartition(".")[2].startswith("running_")
