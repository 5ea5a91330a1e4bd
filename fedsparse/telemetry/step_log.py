"""The step log: how a client's local training goes, one entry every few local steps.

A client collects its entries, and they travel in its reply, because a client may be in another process or on another
machine. The server shows them when the reply is accepted, so a client's lines appear at the end of a round.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer

MOST = 1000
"""Entries of one client and round that travel, 48 kB; with more, every second, third, ... entry does."""


class StepEntry(NamedTuple):
    """What was measured between two entries.

    Attributes:
        step: the last local step of the entry, from 1.
        loss: mean over the predictions.
        rate: predictions a second of ``data``, ``forward``, ``backward`` and ``optimizer`` together.
        forward, backward, optimizer: seconds a step.
    """

    step: int
    loss: float
    rate: float
    forward: float
    backward: float
    optimizer: float


class StepLog:
    """Counts local steps, and makes an entry every ``interval`` steps. Only then does the host wait for the device.

    Args:
        interval: steps between two entries.
        timer: the timer of the training.
        show: is called with each entry.
        clients: how many clients train together under this timer; each gets an equal share of the seconds.

    Attributes:
        step: how many steps were counted.
    """

    def __init__(self, interval: int, timer: StageTimer, show: Callable[[StepEntry], object], clients: int = 1) -> None:
        self.interval, self.timer, self.show, self.clients = interval, timer, show, clients
        self.step = 0
        self._loss, self._predictions = 0.0, 0.0
        self._seconds = timer.seconds()

    def count(self, loss: Tensor, predictions: Tensor | int) -> None:
        """Count a step.

        Args:
            loss: the sum of the losses of all predictions since training began, a scalar on any device.
            predictions: their number.
        """
        self.step += 1
        if self.step % self.interval:
            return
        total, done, now = float(loss), float(predictions), self.timer.seconds()
        spent = {
            stage: (now.get(stage, 0.0) - self._seconds.get(stage, 0.0)) / self.clients
            for stage in ("data", "forward", "backward", "optimizer")
        }
        new = done - self._predictions
        mean = (total - self._loss) / max(new, 1.0)
        rate = new / max(sum(spent.values()), 1e-9)
        per_step = [spent[stage] / self.interval for stage in ("forward", "backward", "optimizer")]
        self._loss, self._predictions, self._seconds = total, done, now
        self.show(StepEntry(self.step, mean, rate, *per_step))


class StepTable:
    """Shows entries: a table in the terminal, and curves under ``step/`` in TensorBoard.

    TensorBoard's step counts the local steps of the whole run: a client's steps follow those of all clients before it,
    by round, and within a round by partition id. So the curves of all clients form one line that never turns back.

    Args:
        task: gives the metrics that follow from a loss, and the name of a prediction.
        scalar: writes a tag's value at a step.
    """

    def __init__(self, task: Task, scalar: Callable[[str, float, int], object]) -> None:
        self.task, self.scalar = task, scalar
        self.done = 0
        self._unit = task.unit
        self._derived = [name for name in task.metrics if name in task.derived(1.0)]
        self._headed: int | None = None

    def show(self, round: int, client: str, entry: StepEntry) -> None:
        """Show an entry of a client; the first one of a round under a heading."""
        derived = {name: self.task.derived(entry.loss)[name] for name in self._derived}
        shown = [f"{derived[name]:{self.task.metrics[name]}}" for name in self._derived[:1]]
        times = {"forward": entry.forward, "backward": entry.backward, "optimizer": entry.optimizer}
        if self._headed != round:
            self._headed = round
            print(
                _line("client", "step", "loss", self._derived[:1], f"{self._unit}/s", [f"{name:>8}" for name in times])
            )
        in_ms = [f"{1000 * seconds:>{max(len(name), 8) - 3}.1f} ms" for name, seconds in times.items()]
        print(_line(client, str(entry.step), f"{entry.loss:.3f}", shown, f"{entry.rate:.0f}", in_ms), flush=True)
        values = {"loss": entry.loss, **derived, f"{self._unit}_per_second": entry.rate, **times}
        for name, value in values.items():
            self.scalar(f"step/{name}", value, self.done + entry.step)

    def finish(self, steps: int) -> None:
        """Count the steps that a client took in a round."""
        self.done += steps


def _line(client: str, step: str, loss: str, derived: list[str], rate: str, times: list[str]) -> str:
    """A line of the table, which fits 80 columns; ``derived`` is at most one metric."""
    return "  ".join([f"{client:>6}", f"{step:>5}", f"{loss:>6}", *(f"{d:>10}" for d in derived), f"{rate:>9}", *times])
