"""The tables of docs/reliability.md: what every aggregator loses under every attack.

    python main.py sweep configs/attacks.yaml; python -m benchmarks.attacks runs/attacks

Each number is the accuracy minus that of `mean` without an attack, in points, seed by seed, with a 95 % confidence
interval; or, in brackets, the number of seeds, where some are missing.
"""

import argparse
import math
from collections import defaultdict
from typing import Any, get_args

from fedsparse.catalogue import AGGREGATORS
from fedsparse.config import Config
from fedsparse.report.results import find_results, is_complete
from fedsparse.report.table import Estimate, measure

CLEAN = ("mean", "none")
ATTACKS = get_args(Config.model_fields["attack"].annotation)

Results = dict[tuple[str, str], dict[int, float]]
"""Of each aggregator and attack the accuracy of each seed, in points; NaN of a run that diverged."""


def by_compressor(folder: str) -> dict[str, Results]:
    """The results in a sweep's folder."""
    found: dict[str, Results] = defaultdict(lambda: defaultdict(dict))
    for result in find_results([folder])[0].values():
        settings: dict[str, Any] = result["config"]
        diverged = result["summary"].get("diverged")
        if not (diverged or is_complete(result)):  # it was cut short
            continue
        accuracy = math.nan if diverged else 100 * measure(result)["accuracy"]
        found[settings["compressor"]][settings["aggregator"], settings["attack"]][settings["seed"]] = accuracy
    return found


def difference(runs: dict[int, float], clean: dict[int, float]) -> str:
    """The mean difference over the seeds, and its interval."""
    if not runs:
        return ""
    estimate = Estimate.of([accuracy - clean[seed] for seed, accuracy in sorted(runs.items())])
    if math.isnan(estimate.mean):
        return "diverged"
    spread = f"± {estimate.half_width:.1f}" if len(runs) == len(clean) > 1 else f"({len(runs)})"
    return f"{estimate.mean:+.1f} {spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    for compressor, results in by_compressor(parser.parse_args().folder).items():
        clean = results[CLEAN]
        rules = [rule for rule in AGGREGATORS if any(tried == rule for tried, _ in results)]
        print(f"\n{compressor}: clean {Estimate.of(list(clean.values())).mean:.1f} %, {len(clean)} seeds\n")
        print("| |", " | ".join(ATTACKS), "|")
        print("|---" * (1 + len(ATTACKS)) + "|")
        for rule in rules:
            cells = [difference(results.get((rule, attack), {}), clean) for attack in ATTACKS]
            print(f"| `{rule}` |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
