"""Accuracy against uploaded bytes on the default job: means over seeds, one line a setting.

    python benchmarks/accuracy.py                                            # the README's table
    python benchmarks/accuracy.py --seeds 3 "--compressor none" "--compressor topk --density 0.01"

Each argument is a set of flags for main.py. The accuracy is measured on the pooled test set with the final weights.
`python main.py sweep configs/ablation-compression.yaml` compares all compressors.
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

MAIN = Path(__file__).parents[1] / "main.py"
JOB = "--distribution dirichlet --beta 0.1"
SETTINGS = ("--compressor none", "--compressor hggtopk")


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
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"`python main.py {JOB}`, {arguments.seeds} seeds\n")
    print("| settings | accuracy | uplink | below dense | seconds |")
    print("|---|---|---|---|---|")
    for flags in arguments.settings:
        summaries = [run(flags, seed) for seed in range(arguments.seeds)]
        accuracy = [100 * s["accuracy"] for s in summaries]
        spread = f" ± {statistics.stdev(accuracy):.2f}" if len(accuracy) > 1 else ""
        uplink, ratio, seconds = (
            statistics.mean(s[key] for s in summaries) for key in ("uplink-bytes", "uplink-ratio", "seconds")
        )
        print(
            f"| `{flags}` | {statistics.mean(accuracy):.2f}{spread} % | {uplink / 1e6:.2f} MB | {ratio:.1f} x "
            f"| {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
