"""Accuracy against uploaded bytes on the default job: means over seeds, one line a setting.

    python benchmarks/accuracy.py                                            # the README's table
    python benchmarks/accuracy.py --seeds 3 "--compressor none" "--compressor topk --density 0.01"
    python benchmarks/accuracy.py --family                                   # every compressor at three densities

Each argument is a set of flags for main.py. The accuracy is that of the final weights on the pooled test set.
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

sys.path.insert(0, str(Path(__file__).parents[1]))

from fedsparse.compression import COMPRESSORS, PRESETS

MAIN = Path(__file__).parents[1] / "main.py"
JOB = "--distribution dirichlet --beta 0.1"
SETTINGS = ("--compressor none", "--compressor hggtopk")
DENSITIES = (0.01, 0.02, 0.05)


def family() -> list[str]:
    """Every compressor, at three densities where that says anything."""
    dense = [name for name, parts in PRESETS.items() if parts["compressor"] == "none"]
    plain = [f"--compressor {name}" for name in ("none", "threshold", *dense)]
    others = [name for name in (*COMPRESSORS, *PRESETS) if name not in ("none", "threshold", *dense)]
    return plain + [f"--compressor {name} --density {density}" for name in others for density in DENSITIES]


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
    parser.add_argument("--family", action="store_true", help="all compressors instead of settings")
    arguments = parser.parse_args()
    print(f"`python main.py {JOB}`, {arguments.seeds} seeds\n")
    print("| settings | accuracy | uplink | below dense | seconds |")
    print("|---|---|---|---|---|")
    for flags in family() if arguments.family else arguments.settings:
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
