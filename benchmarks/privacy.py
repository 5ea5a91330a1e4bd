"""Accuracy under differential privacy, one line a compressor: the table of docs/privacy.md.

    python benchmarks/privacy.py                    # three seeds, epsilon off and 0.5; ten seconds a run
    python benchmarks/privacy.py --seeds 5 --epsilons 1

The clip and the server's learning rate of each line are the best of a few that were tried with seed 10, which is not in
the table. The accuracy is that of the final weights on the pooled test set.
"""

import argparse
import io
import sys
import tempfile
from contextlib import redirect_stdout
from typing import Any

from fedsparse.python_door import run as run_federation
from fedsparse.report.estimate import Estimate

JOB = {
    "dataset": "fashion-mnist-mini", "model": "mlp-small", "clients": 1000, "clients-per-round": 100, "rounds": 25,
    "epochs": 5, "eval-every": 1000, "cohort-batching": "on", "workers": 1,
}  # fmt: skip
SMP = {"compressor": "randomk", "shared-support": True, "density": 0.3, "error-feedback": False, "values": "f32"}
TOPK = {"compressor": "topk", "density": 0.1}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "`none`": ({"compressor": "none"}, {"dp-clip": 0.12, "server-lr": 4}),
    "`randomk`, density 0.3, shared (Fed-SMP)": (SMP | {"server-lr": 2}, {"dp-clip": 0.07, "server-lr": 8}),
    "`eden`": ({"compressor": "eden"}, {"dp-clip": 0.3}),
    "`topk`, density 0.1, error feedback": (TOPK, {"dp-clip": 0.12, "server-lr": 4}),
}
"""For each line its settings, and those that it has besides under differential privacy."""


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """The summary of one run of the job."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        return run_federation({**JOB, **settings, "logdir": folder}).summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epsilons", nargs="*", default=["off", "0.5"])
    arguments = parser.parse_args()
    print("| | " + " | ".join(f"epsilon {e}" for e in arguments.epsilons) + " | uplink |")
    print("|---|" + "---:|" * (len(arguments.epsilons) + 1))
    for name, (settings, private) in METHODS.items():
        cells = []
        for epsilon in arguments.epsilons:
            more = {} if epsilon == "off" else {"dp-epsilon": epsilon, **private}
            seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
            summaries = [run({**settings, **more, "seed": seed}) for seed in seeds]
            accuracy = Estimate.of([100 * summary["accuracy"] for summary in summaries])
            cells.append(f"{accuracy.mean:.1f} ± {accuracy.half_width:.1f} %")
            print(name, epsilon, cells[-1], file=sys.stderr, flush=True)
        uplink = sum(s["uplink-bytes"] for s in summaries) / len(summaries)
        print(f"| {name} | {' | '.join(cells)} | {uplink / 1e6:.1f} MB |", flush=True)


if __name__ == "__main__":
    main()
