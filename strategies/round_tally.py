"""What a round's cohort brought: measurements, failures and refusals, and the simulated clock."""

import logging
from collections import Counter, defaultdict

from fedsparse.compression import PayloadError
from fedsparse.engine.step_records import Steps
from fedsparse.errors import harmless, reason
from fedsparse.experiment import Experiment
from fedsparse.network import SimulatedClock
from fedsparse.strategies.acceptance import Refused
from fedsparse.strategies.ledger import Known
from fedsparse.strategies.replies import Checked
from fedsparse.tasks import Task
from fedsparse.telemetry.timers import StageTimer

log = logging.getLogger("fedsparse")


class RoundTally:
    """One round, with all its cohorts.

    Attributes:
        metrics: what the round measured so far, under telemetry's tags.
        measures: what its clients measured, before ``close`` takes their means.
        failures: the failed clients, each with its reason.
        steps: the step log of each client whose upload counts, by partition id; empty without ``log-interval``.
        asked: how many clients were asked.
        late: how many of them came too late on the simulated network.
        timer: the stage timer.
        clock: the simulated clock.
    """

    def __init__(self, experiment: Experiment, round: int) -> None:
        config = experiment.config
        self.round, self._task = round, experiment.task
        self.metrics: dict[str, float] = {}
        self.measures, self.failures, self.steps = Measures(), list[str](), dict[int, Steps]()
        self.asked, self.late, self._longest = 0, 0, (0.0, 0)
        self.timer = StageTimer()
        self.clock = SimulatedClock(config.network(), config.compute_seconds, config.round_deadline)

    def count(self, tag: str, amount: float) -> None:
        """Add to a sum."""
        self.metrics[tag] = self.metrics.get(tag, 0) + amount

    def fail(self, client: int, told: str) -> None:
        """Note a failure by its reason; the log file gets all that was told of it."""
        why = reason(told)
        self.failures.append(f"client {client}: {why}")
        self.metrics["comm/failures"] = len(self.failures)
        log.warning("round %d: client %d failed: %s", self.round, client, why)
        if (whole := harmless(told.strip())) not in ("", why):
            log.info("%s", whole)

    def refuse(self, client: int, error: PayloadError) -> None:
        """Note a reply that is not accepted; telemetry counts it by its reason."""
        self.count(f"refused/{error.kind if isinstance(error, Refused) else 'payload'}", 1)
        self.fail(client, f"its reply is refused: {error}")

    def in_time(self, client: int, known: Known, received: int, measured: dict[str, float]) -> bool:
        """Whether a reply comes before the simulated deadline; else the client has failed.

        Args:
            received: bytes of the reply.
            measured: the client's measurements.
        """
        seconds = sum(value for tag, value in measured.items() if tag.startswith("time/"))
        if late := self.clock.add(client, downlink=known.sent_bytes, uplink=received, measured=seconds):
            self.fail(client, late)
            self.late += 1
        elif self.clock.network:
            links = self.clock.network.seconds(client, downlink=known.sent_bytes, uplink=received, compute=0.0)
            self.measures.count("time/transfer", links)
        return not late

    def accept(self, client: int, checked: Checked) -> None:
        """Count what a client measured whose update is accepted."""
        if checked.steps:
            self.steps[client] = checked.steps
        self.measures.count("comm/clients", 1)
        self.measures.add(checked.measured, checked.samples)

    def has_norm(self, client: int, norm: float) -> None:
        """Remember the norm of an accepted update."""
        self._longest = max(self._longest, (norm, client))

    @property
    def longest(self) -> str:
        """Who sent the longest accepted update, in words."""
        norm, client = self._longest
        return f"the longest update is client {client}'s, of norm {norm:.3g}"

    def close(self, samples: int) -> None:
        """End the train phase: add the means of what the clients measured on ``samples`` samples to ``metrics``."""
        self.metrics |= with_derived(self.measures.means(samples), self._task)
        if self.clock.seconds is not None:
            self.metrics["time/simulated"] = self.clock.seconds

    def score(self, means: dict[str, float]) -> None:
        """Add the mean scores of the evaluate phase."""
        self.metrics |= with_derived(means, self._task)


class Measures:
    """What a round's clients measured, added up one client at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._clients: Counter[str] = Counter()  # how many clients measured each tag

    def count(self, tag: str, amount: float) -> None:
        """Add to one sum."""
        self._sums[tag] += amount

    def add(self, measured: dict[str, float], samples: int) -> None:
        """Add one client's measurements."""
        self._clients.update(measured.keys())
        for tag, value in measured.items():
            self._sums[tag] += value * (samples if tag.startswith("train/") else 1.0)

    def means(self, samples: float) -> dict[str, float]:
        """``train/`` tags: means over samples; ``compress/`` tags: means over their clients; other tags: sums.

        A client that sends an earlier payload again has no ``compress/`` tags, because it compressed nothing.
        """
        return {
            tag: value
            / (samples if tag.startswith("train/") else self._clients[tag] if tag.startswith("compress/") else 1)
            for tag, value in self._sums.items()
        }


def with_derived(means: dict[str, float], task: Task) -> dict[str, float]:
    """The means, with what follows from the mean loss; a mean of perplexities is not the perplexity of the mean."""
    for phase in ("train/", "eval/client_"):
        if f"{phase}loss" in means:
            measured = task.derived(means[f"{phase}loss"])
            means |= {f"{phase}{name}": measured[name] for name in task.metrics if name in measured}
    return means
