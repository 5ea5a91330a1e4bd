"""Gives Flower's FedAvg, and what is made from it, the replies that are alike: one odd reply would end the whole run.

FedAvg raises an exception when its replies differ in their records, arrays, shapes or metrics. A strategy that can work
with such replies does not ask FedAvg to check them, and gets all of them.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    Strategy,
)

from fedsparse.errors import one_line
from fedsparse.flower.decoded import DecodedArray
from fedsparse.flower.plain_arrays import NUMPY, read

log = logging.getLogger("fedsparse")

CLIPS = (DifferentialPrivacyServerSideFixedClipping, DifferentialPrivacyServerSideAdaptiveClipping)
"""They read the arrays before the FedAvg inside them checks the replies."""
TREES = (FedXgbBagging, FedXgbCyclic)
"""Their replies are bytes of trees, which may have any length."""
CHECK = "_check_and_log_replies"
"""FedAvg's method that checks."""


class Form(NamedTuple):
    """What must be the same in all replies that FedAvg averages.

    Attributes:
        arrays: the names of the ArrayRecords, and of the Arrays in them with their shapes.
        metrics: the names of the MetricRecords, and of the metrics in them with the lengths of lists.
    """

    arrays: frozenset[tuple[str, frozenset[Hashable]]]
    metrics: frozenset[tuple[str, frozenset[Hashable]]]


def refused(reply: Message, reason: str) -> Message:
    """An error reply in the place of one that is not accepted, with one line in the log."""
    told = one_line(f"the reply of node {reply.metadata.src_node_id} is refused: {reason}")
    log.warning("%s", told)
    return make_message(reply.metadata, error=Error(ErrorCode.MOD_FAILED_PRECONDITION, told))


def strategies_in(strategy: Any) -> Iterator[Strategy]:
    """The strategy, the one that it is around, and so on."""
    while isinstance(strategy, Strategy):
        yield strategy
        strategy = getattr(strategy, "strategy", None)


@contextmanager
def only_alike(strategy: Strategy, sent: ArrayRecord) -> Iterator[None]:
    """A context in which the FedAvg inside a strategy checks only the replies that are alike.

    Args:
        strategy: with FedAvg or a subclass of it in its middle; else nothing is changed.
        sent: the arrays that the round began with.
    """
    *_, inner = strategies_in(strategy)
    if isinstance(inner, FedAvg):
        vars(inner)[CHECK] = partial(check_alike, getattr(inner, CHECK), inner, sent)
    try:
        yield
    finally:
        vars(inner).pop(CHECK, None)


def check_alike(
    check: Any, strategy: FedAvg, sent: ArrayRecord, replies: Iterable[Message], is_train: bool, validate: bool = True
) -> Any:
    """FedAvg's own ``check`` of the replies that are alike."""
    given = list(replies)
    return check(alike(given, sent, strategy, is_train=is_train) if validate else given, is_train, validate)


def alike_for(strategy: Strategy, replies: list[Message], sent: ArrayRecord) -> list[Message]:
    """The training replies for a strategy, of which one that clips on the server gets only those that are alike."""
    *_, inner = strategies_in(strategy)
    if isinstance(inner, FedAvg) and any(isinstance(each, CLIPS) for each in strategies_in(strategy)):
        return alike(replies, sent, inner)
    return replies


def alike(replies: list[Message], sent: ArrayRecord, strategy: FedAvg, *, is_train: bool = True) -> list[Message]:
    """The replies, with error replies in the place of those that FedAvg cannot average, alone or with the most.

    Where two forms are equally frequent, that of the arrays that were sent is preferred, and then the first. A form of
    a single reply must be that of the arrays that were sent, unless no arrays were sent.

    Args:
        replies: with content or an error.
        sent: the arrays that the round began with.
        strategy: FedAvg, or a subclass of it.
        is_train: whether the arrays of the replies count, too.
    """
    limits, weight, of_trees = (
        limits_of(sent) if is_train else None,
        strategy.weighted_by_key,
        isinstance(strategy, TREES),
    )
    form = partial(form_of, is_train=is_train, of_trees=of_trees)
    answers = without(replies, partial(fault_of, weight=weight, limits=limits))
    counts = Counter(form(reply.content) for reply in answers if reply.has_content())
    asked = shapes_of(sent, of_trees)

    def is_asked(form: Form) -> bool:
        return [arrays for _, arrays in form.arrays] == [asked]

    most = max(counts, key=lambda form: (counts[form], is_asked(form)), default=None)
    odd = "it has other records, arrays, shapes or metrics than most replies"
    if most and is_train and asked and counts[most] == 1 and not is_asked(most):
        most, odd = None, "it has other arrays or shapes than those that were sent, and no other reply has the same"
    answers = without(answers, lambda content: "" if form(content) == most else odd)
    total = sum(weight_of(reply.content, weight) for reply in answers if reply.has_content())
    return answers if 0 < total < math.inf else without(answers, lambda _: f"all {weight} add up to {total:g}")


def without(replies: list[Message], fault: Callable[[RecordDict], str]) -> list[Message]:
    """The replies, with error replies in the place of those in whose content there is a fault."""
    answers = []
    for reply in replies:
        found = fault(reply.content) if reply.has_content() else ""
        answers.append(refused(reply, found) if found else reply)
    return answers


def fault_of(content: RecordDict, weight: str, limits: Mapping[str, float] | None) -> str:
    """Why FedAvg cannot average a reply; empty where it can.

    Args:
        weight: see ``alike``.
        limits: the largest magnitude of each array's numbers, see ``limits_of``; None where arrays do not count.
    """
    if len(content.metric_records) != 1 or (limits is not None and len(content.array_records) != 1):
        return "it should have one MetricRecord" + ("" if limits is None else " and one ArrayRecord")
    if not 0 <= weight_of(content, weight) < math.inf:
        return f"its {weight} is no weight"
    for key, limit in (limits or {}).items():
        array = next(iter(content.array_records.values())).get(key)
        if array is not None and not largest(array) <= limit:
            return f"its array {one_line(key)!r} has other content than finite numbers of the dtype that was sent"
    return ""


def limits_of(sent: ArrayRecord) -> dict[str, float]:
    """The largest number of the dtype of each array of finite numbers."""
    arrays = {key: read(array) for key, array in sent.items() if array.stype == NUMPY}
    largest_of = {"f": np.finfo, "i": np.iinfo, "u": np.iinfo}
    return {
        key: float(largest_of[values.dtype.kind](values.dtype).max)
        for key, values in arrays.items()
        if values.dtype.kind in largest_of and np.isfinite(values).all()
    }


def largest(array: Array) -> float:
    """The largest magnitude of an array's numbers; NaN where one is NaN, or where there are no numbers."""
    if isinstance(array, DecodedArray):
        return 0.0  # CompressedStrategy has looked at the change
    try:
        values = read(array) if array.stype == NUMPY else np.empty(0, np.str_)
    except ValueError:
        return math.nan
    if values.dtype.kind not in "biuf":
        return math.nan
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def form_of(content: RecordDict, is_train: bool, of_trees: bool) -> Form:
    """The form of a reply; that of an array that cannot be read is like no other."""
    records = content.array_records.items() if is_train else ()
    arrays = frozenset((name, shapes_of(record, of_trees)) for name, record in records)
    metrics = frozenset((name, lengths_of(record)) for name, record in content.metric_records.items())
    return Form(arrays, metrics)


def shapes_of(record: ArrayRecord, of_trees: bool) -> frozenset[Hashable]:
    """The names and shapes of the Arrays."""
    return frozenset((key, shape_of(array, of_trees)) for key, array in record.items())


def lengths_of(record: MetricRecord) -> frozenset[Hashable]:
    """The names of the metrics, and the lengths of those that are lists."""
    return frozenset((key, len(value) if isinstance(value, list) else None) for key, value in record.items())


def shape_of(array: Array, of_trees: bool) -> Hashable:
    """The shape of an array of numbers, and else what it is of.

    Args:
        of_trees: whether bytes may have any length.
    """
    if array.stype != NUMPY:
        return array.stype
    if isinstance(array, DecodedArray):
        return array.shape
    try:
        values = read(array)
    except ValueError:
        return object()
    is_tree = of_trees and values.dtype == "uint8" and values.ndim == 1
    return str(values.dtype) if is_tree or values.dtype.kind not in "biufc" else values.shape


def weight_of(content: RecordDict, weight: str) -> float:
    """The metric of this name; NaN where it is no number."""
    value = next(iter(content.metric_records.values())).get(weight)
    return value if isinstance(value, int | float) else math.nan
