"""Made-up results of runs."""

from typing import Any

from fedsparse.config import Config


def result(
    accuracies: list[float], ended: str = "complete", command: str = "run", diverged: bool = False, **settings: Any
) -> dict[str, Any]:
    rounds = [
        {"round": n, "eval/accuracy": a, "comm/uplink_total": 1000 * n, "comm/downlink_total": 2000 * n}
        for n, a in enumerate(accuracies)
    ]
    last = len(accuracies) - 1
    summary = {"ended": ended, "diverged": diverged, "rounds": last}
    summary |= {"uplink-bytes": 1000 * last, "downlink-bytes": 2000 * last, "seconds": 3.0}
    config = Config(**{"rounds": last or 1, **settings}).flat()
    return {"command": command, "config": config, "provenance": {}, "rounds": rounds, "summary": summary}
