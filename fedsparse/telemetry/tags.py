"""The tags of a run's numbers, which are the same in TensorBoard, rounds.csv and the JSON."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

STAGES = (
    "sample",
    "data",
    "forward",
    "backward",
    "optimizer",
    "prune",
    "compress",
    "encode",
    "mask",
    "secure",
    "decode",
    "aggregate",
    "evaluate",
)
"""The stages of a round, in order. The seconds of a client's stages are summed over the cohort."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "forward": ("data", "forward"),
    "backward": ("backward",),
    "compress": ("prune", "compress", "encode", "mask", "secure", "decode"),
    "transfer": ("transfer",),
    "update": ("optimizer", "sample", "aggregate"),
}
"""The parts of the seconds of training and communication, with the ``time/`` tags that each part adds up.

``transfer`` is of the simulated network. Evaluation belongs to no part.
"""

CLIENT_PHASES = ("train/", "eval/client_")

REFUSALS = ("content", "metrics", "samples", "payload", "norm", "variance", "twice")
"""Why replies are refused, in the order of the checks; ``refused/`` counts the clients of a round by these."""

ACCURACY: Mapping[str, str] = {"accuracy": ".2%"}
"""The metrics of classification, each with the format of its values. The first is the headline."""

LESS_IS_BETTER = ("perplexity",)
"""Metrics whose best value is the smallest."""

WEIGHTS_HASH = "weights/hash"
"""The number that ``vector.round_hash`` gives for the weights at the end of a round. TensorBoard has no use for it."""

EPSILON = "privacy/epsilon"
"""Of the differential privacy of all weights released up to the end of a round."""

KILLED = "killed or running"
"""How a run ended whose last words are of a checkpoint."""


class Headline(NamedTuple):
    """The one metric that is shown for a run: its name, and the format of its values."""

    name: str
    form: str

    @property
    def tag(self) -> str:
        """The tag of this metric on the pooled test set."""
        return f"eval/{self.name}"

    @property
    def less_is_better(self) -> bool:
        """Whether the best value is the smallest."""
        return self.name in LESS_IS_BETTER

    def shown(self, value: float, width: str = "") -> str:
        """A value formatted for people."""
        return f"{value:{width}{self.form}}"

    def best(self, values: Iterable[float]) -> float | None:
        """The best of the values; None when there are no values."""
        return (min if self.less_is_better else max)(values, default=None)


def seconds_by_part(row: Mapping[str, float]) -> dict[str, float]:
    """The seconds of each of ``PARTS`` of which the row measured something."""
    measured = {part: [row[f"time/{tag}"] for tag in tags if f"time/{tag}" in row] for part, tags in PARTS.items()}
    return {part: sum(seconds) for part, seconds in measured.items() if seconds}


def of_model(label: str) -> str:
    """How the tags begin of one of a run's several networks on the pooled test set."""
    return f"models/{label}/"


def columns(metrics: Iterable[str], models: Iterable[str] = ()) -> tuple[str, ...]:
    """The columns of rounds.csv, and the keys of a round in the JSON; a round lacks tags that it did not measure.

    Args:
        models: the labels of the networks, where there are several.
    """
    return (
        *_of_each(("train/", "eval/", "eval/client_", *map(of_model, models)), metrics),
        "comm/uplink_bytes",
        "comm/downlink_bytes",
        "comm/uplink_total",
        "comm/downlink_total",
        "comm/messages",
        "comm/clients",
        "comm/failures",
        *(f"refused/{kind}" for kind in REFUSALS),
        "compress/density",
        "compress/threshold",
        "compress/threshold_error",
        "compress/residual_norm",
        "compress/clipped",
        "amp/skipped_steps",
        "topology/density",
        "topology/changed",
        EPSILON,
        "privacy/clipped",
        WEIGHTS_HASH,
        *(f"time/{stage}" for stage in STAGES),
        "time/transfer",
        "time/round",
        "time/simulated",
        "time/simulated_total",
        "system/rss_mb",
        "system/gpu_mb",
    )


class Range(NamedTuple):
    """The values that a measurement may have, both ends included."""

    low: float
    high: float


def measured_by_clients(metrics: Iterable[str]) -> dict[str, Range]:
    """The tags that a client's reply may have, each with the range of its values. The server measures all others."""
    share, size, anything = Range(0, 1), Range(0, 1e30), Range(-1e30, 1e30)
    return {
        **{tag: share if tag.endswith("/accuracy") else anything for tag in _of_each(CLIENT_PHASES, metrics)},
        "compress/density": share,
        "compress/threshold": size,
        "compress/threshold_error": size,
        "compress/residual_norm": size,
        "compress/clipped": share,
        "amp/skipped_steps": Range(0, 1e9),
        **{f"time/{stage}": Range(0, 1e8) for stage in STAGES},
    }


def _of_each(prefixes: Iterable[str], metrics: Iterable[str]) -> tuple[str, ...]:
    names = ("loss", *metrics)
    return tuple(prefix + name for prefix in prefixes for name in names)
