"""What a client says, taken with care: whatever is wrong with one reply costs that client its turn, never the run."""

import math

from flwr.app import Message, MetricRecord

from fedsparse.compression import PayloadError
from fedsparse.telemetry.tags import ACCURACY, measured_by_clients

MOST_SAMPLES = 10**9  # a client that claims more would alone decide the average
CLIENT_TAGS = measured_by_clients(ACCURACY)
"""What clients may measure. Everything else is counted by the server itself, and left out here."""


def read_metrics(reply: Message, least: int = 1) -> tuple[int, dict[str, float]]:
    """The number of samples, at least ``least``, and the measurements under ``CLIENT_TAGS``, all finite.

    Raises:
        PayloadError: one line that says what is wrong with the reply.
    """
    record = reply.content.get("metrics") if reply.has_content() else None
    if not isinstance(record, MetricRecord):
        raise PayloadError("it has no metrics")
    samples = record.get("num-examples")
    if not isinstance(samples, int) or not least <= samples <= MOST_SAMPLES:
        raise PayloadError(f"num-examples = {samples!r}: should be a whole number of at least {least}")
    measured: dict[str, float] = {}
    for tag in CLIENT_TAGS & set(record):
        value = record[tag]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise PayloadError(f"{tag} = {value!r}: should be a finite number")
        measured[tag] = float(value)
    return samples, measured
