"""Accuracy against bytes both ways on the default job, one line a setting.

    python benchmarks/accuracy.py                                            # the README's table
    python benchmarks/accuracy.py --seeds 3 "--compressor none" "--compressor topk --density 0.01"

Each argument is a set of flags for main.py; the others are compared with the first, seed by seed. The accuracy is that
of the final weights on the pooled test set. `python main.py sweep configs/ablation-compression.yaml` compares all
compressors.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fedsparse.report.estimate import Estimate

MAIN = Path(__file__).parents[1] / "main.py"
JOB = "--distribution dirichlet --beta 0.1"
SETTINGS = (
    "--compressor none",
    "--compressor hggtopk",
    "--config configs/small-uplink.yaml",
    "--config configs/small-both-ways.yaml",
)


def run(flags: str, seed: int) -> dict[str, Any]:
    """The summary of one run of the default job."""
    with tempfile.TemporaryDirectory() as folder:
        outfile = Path(folder) / "result.json"
        command = [sys.executable, str(MAIN), *shlex.split(JOB), *shlex.split(flags), "--seed", str(seed)]
        command += ["--eval-every", "1000000", "--logdir", folder, "--outfile", str(outfile)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{shlex.join(command)}\n{done.stderr}")
        summary: dict[str, Any] = json.loads(outfile.read_text())["summary"]
        return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=SETTINGS, help="flags of main.py, in quotes")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"`python main.py {JOB}`, {arguments.seeds} seeds; mean ± 95 % confidence interval\n")
    print("| settings | accuracy | above the first | uplink | downlink | uplink below dense | both ways | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    first: list[float] = []
    for flags in arguments.settings:
        summaries = [run(flags, seed) for seed in range(arguments.seeds)]
        accuracy = [100 * s["accuracy"] for s in summaries]
        first = first or accuracy
        above = Estimate.of([mine - its for mine, its in zip(accuracy, first, strict=True)])
        up, down, seconds, dense_up, dense_down = (
            statistics.mean(s[key] for s in summaries)
            for key in ("uplink-bytes", "downlink-bytes", "seconds", "dense-uplink-bytes", "dense-downlink-bytes")
        )
        mean = Estimate.of(accuracy)
        print(
            f"| `{flags}` | {mean.mean:.2f} ± {mean.half_width:.1f} % | {above.mean:+.2f} ± {above.half_width:.2f} "
            f"| {up / 1e6:.2f} MB | {down / 1e6:.1f} MB | {dense_up / up:.1f} x "
            f"| {(dense_up + dense_down) / (up + down):.1f} x | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
