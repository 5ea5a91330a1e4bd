"""Whether a round has enough usable updates, and what follows where it has too few."""

import logging
from collections.abc import Iterator

from fedsparse.compression import NonFiniteError
from fedsparse.errors import Diverged, RunFailed
from fedsparse.strategies.cohort import Cohort
from fedsparse.strategies.received import Received
from fedsparse.strategies.replies import Replies

log = logging.getLogger("fedsparse")

COHORTS = 3
"""How many cohorts a round asks at most, until ``min-replies`` clients have sent a usable update."""


def further_cohorts(cohort: Cohort, received: Received, round: int) -> Iterator[int]:
    """Ask further cohorts while too few updates are usable: yields 2 for the second cohort of the round, and so on.

    Raises:
        RunFailed: there are too few usable updates, unless all clients only missed the simulated deadline.
        Diverged: all clients failed, because their updates are not finite.
    """
    for attempt in range(2, COHORTS + 1):
        if not _needs_more(cohort, received) or cohort.is_hopeless:
            break
        log.warning("round %d: %d usable replies; asking another cohort", round, received.count)
        yield attempt
    if _needs_more(cohort, received):
        raise _failure(cohort, received, round)


def _needs_more(cohort: Cohort, received: Received) -> bool:
    """Whether too few updates are usable, and not only because all others came too late.

    With differential privacy one cohort is all, because to ask another one would tell who is in the first.
    """
    if cohort.config.is_private:
        return False
    missing = cohort.tally.asked - received.count
    return received.count < cohort.config.min_replies and cohort.tally.late < missing


def _failure(cohort: Cohort, received: Received, round: int) -> RunFailed:
    if not received.count:
        diverged = all(NonFiniteError.__name__ in failure for failure in cohort.tally.failures)
        kind = Diverged if diverged else RunFailed
        return kind(f"round {round}: all {cohort.tally.asked} clients failed; {cohort.tally.failures[0]}")
    least = cohort.config.min_replies
    told = f"only {received.count} of {cohort.tally.asked} clients sent a usable update, and min-replies = {least}"
    return RunFailed(f"round {round}: {told}; {cohort.tally.failures[0]}")


def is_void(cohort: Cohort, received: Received | Replies) -> bool:
    """Whether the weights stay as they were: all clients came too late, or too few have added their noise.

    The server's own noise makes every round count, even without a single client.
    """
    config = cohort.config
    return not config.noise_by_server and received.count < (config.min_replies if config.is_private else 1)
