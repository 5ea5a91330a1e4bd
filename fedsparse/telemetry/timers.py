"""Seconds by stage, measured without waiting for the device."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageTimer:
    """Adds up the seconds of named stages.

    On a GPU a stage lies between two CUDA events, which are read when ``seconds`` is called, so that the host never
    waits inside a loop. On other devices the wall clock measures the stage.
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
