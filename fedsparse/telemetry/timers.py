"""Seconds by stage, measured without waiting for the device."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch


class StageTimer:
    """Adds up the seconds of named stages.

    On a GPU, two CUDA events enclose a stage. They are read when ``seconds`` is called, so that the host never waits
    inside a loop. On other devices the wall clock measures the stage.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._cuda = device is not None and device.type == "cuda"
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if self._cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._events.append((stage, start, end))
        else:
            began = time.perf_counter()
            yield
            self._seconds[stage] += time.perf_counter() - began

    def share(self, parts: int) -> "StageTimer":
        """A timer with one of ``parts`` equal parts of this timer's seconds."""
        timer = StageTimer()
        timer._cuda = self._cuda
        timer._seconds |= {stage: seconds / parts for stage, seconds in self.seconds().items()}
        return timer

    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far. Waits for the device once."""
        if self._events:
            self._events[-1][2].synchronize()
            for stage, start, end in self._events:
                self._seconds[stage] += start.elapsed_time(end) / 1000
            self._events.clear()
        return dict(self._seconds)


def medians(
    tasks: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of each task by ``clock``. Tasks take turns, so that a slow moment of the machine hits all."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            began = clock()
            task()
            if turn:  # turn 0 is a warm-up
                seconds[name].append(clock() - began)
    return {name: statistics.median(s) for name, s in seconds.items()}
