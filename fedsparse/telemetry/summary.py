"""A run in a few numbers, from its rounds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedsparse.telemetry.tags import EPSILON, STAGES, Headline, seconds_by_part


def summary_of(
    rounds: Sequence[Mapping[str, float]],
    headline: Headline,
    others: Iterable[Headline],
    dense_bytes: float | None,
    seconds: float,
) -> dict[str, Any]:
    """The metrics, bytes, the same messages' bytes with the full model, and seconds by stage and part.

    Args:
        rounds: what each round measured.
        headline, others: the metrics of the task.
        dense_bytes: of one message with the whole of the full model; None if that is not known.
        seconds: that the run took.
    """
    last: Mapping[str, float] = rounds[-1] if rounds else {}
    evaluated = [row for row in rounds if headline.tag in row]
    latest = evaluated[-1] if evaluated else {}
    sums: dict[str, float] = defaultdict(float)
    for row in rounds:
        for tag, value in row.items():
            sums[tag] += value
    uplink, uploads, messages = (
        last.get("comm/uplink_total", 0.0),
        sums.get("comm/clients", 0.0),
        sums.get("comm/messages", 0.0),
    )
    return {
        "rounds": int(last.get("round", 0)),
        headline.name: latest.get(headline.tag),
        f"best-{headline.name}": headline.best(row[headline.tag] for row in evaluated),
        "loss": latest.get("eval/loss"),
        **{other.name: latest.get(other.tag) for other in others},
        "uplink-bytes": int(uplink),
        "downlink-bytes": int(last.get("comm/downlink_total", 0)),
        "dense-uplink-bytes": None if dense_bytes is None else int(uploads * dense_bytes),
        "dense-downlink-bytes": None if dense_bytes is None else int(messages * dense_bytes),
        "uplink-ratio": uploads * dense_bytes / uplink if uplink and dense_bytes else None,
        "seconds": seconds,
        "epsilon": last.get(EPSILON),
        "simulated-seconds": last.get("time/simulated_total"),
        "seconds-by-stage": {stage: sums.get(f"time/{stage}", 0.0) for stage in STAGES},
        "seconds-by-part": seconds_by_part(sums),
        "kept": _mean(rounds, "compress/density"),
        "threshold-error": _mean(rounds, "compress/threshold_error"),
    }


def _mean(rounds: Iterable[Mapping[str, float]], tag: str) -> float | None:
    """The mean over the rounds that measured a number; None when none did."""
    values = [row[tag] for row in rounds if tag in row]
    return sum(values) / len(values) if values else None
