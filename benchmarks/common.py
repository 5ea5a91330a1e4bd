"""Timing for the side-by-side measurements: everything in one run, interleaved, medians.

One thread, and its CPU time: what else the machine does at the moment counts as little as possible.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def medians(tasks: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each task. Tasks take turns, so that a slow moment of the machine meets all of them."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            began = time.process_time()
            task()
            if turn:  # the first is warm-up
                seconds[name].append(time.process_time() - began)
    return {name: statistics.median(s) for name, s in seconds.items()}
