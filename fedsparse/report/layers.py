"""The layers' densities over the rounds of a run, which only TensorBoard's files have."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event

from fedsparse.report.curves import Floats
from fedsparse.telemetry.events import EVENTS

DENSITY = "density/"


def layer_densities(folder: Path) -> dict[str, Floats]:
    """Of each layer, (2, n): the rounds, and the share of its weights that exist; empty where none were recorded.

    Args:
        folder: of a run, or of a sweep's cell.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted([*folder.glob(EVENTS), *folder.glob(f"*/{EVENTS}")]):
        for event in _events(file):
            for value in event.summary.value:
                if value.tag.startswith(DENSITY):
                    found.setdefault(value.tag.removeprefix(DENSITY), {})[event.step] = value.simple_value
    return {layer: np.array(sorted(rounds.items()), np.float64).T for layer, rounds in found.items()}


def _events(file: Path) -> Iterator[Event]:
    """The events of a file up to its damaged or half written end.

    TensorBoard's own reader imports TensorFlow where that is installed, which takes seconds. A record is its length,
    4 bytes of checksum, the event, and 4 bytes of checksum (TensorFlow, "TFRecord").
    """
    content, at = file.read_bytes(), 0
    while at + 16 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        at += 12
        if at + length + 4 > len(content):
            return
        try:
            yield Event.FromString(content[at : at + length])
        except Exception:  # protobuf's DecodeError has no place of its own for all versions
            return
        at += length + 4
