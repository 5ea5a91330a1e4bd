"""The closing lines of runs, printed again: of finished, interrupted, killed and running ones."""

from fedsparse.report.found import FoundRuns
from fedsparse.report.results import headline_of, other_metrics, whole_summary
from fedsparse.report.style import named
from fedsparse.telemetry.progress import print_summary


def print_summaries(found: FoundRuns) -> None:
    """What each run said, or would have said, at its end."""
    for (settings, result), file in zip(found.runs, found.files, strict=True):
        if len(found.runs) > 1:
            print(f"\n{named(settings, ())}")
        print_summary(whole_summary(result), file.parent, headline_of(result), other_metrics(result))
