"""What a checkpoint costs: seconds and bytes, for the default job and for a million clients.

    python -m benchmarks.checkpoints

A run without ``--checkpoint-every`` writes one about every 300 s, and waits longer where that would take over 5 % of
its time. So the share is that of one checkpoint in 300 s.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine, write_images
from fedsparse.commands import main as fedsparse
from fedsparse.strategies.saver import SECONDS, Saver


def measure(flags: list[str], folder: Path) -> list[tuple[float, int, int]]:
    """Of each checkpoint of a run: its seconds, its bytes, and the clients in it."""
    measured: list[tuple[float, int, int]] = []
    write = Saver._write

    def timed(self: Saver, round: int) -> None:
        changed, began = len(self.cohort.ledger.changed), time.perf_counter()
        write(self, round)
        seconds = time.perf_counter() - began
        files = self.checkpoints.folder.glob(f"*-{round}*.safetensors")
        measured.append((seconds, sum(file.stat().st_size for file in files), changed))

    Saver._write = timed  # type: ignore[method-assign]
    try:
        if fedsparse(
            [*flags, "--workers", "1", "--device", "cpu", "--logdir", str(folder), "--checkpoint-every", "10"]
        ):
            sys.exit("the run failed")
    finally:
        Saver._write = write  # type: ignore[method-assign]
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = str(parser.parse_args().rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_images(folder / "large.npz", 2_000_000, side=4)
        jobs = {
            "default": ["--rounds", rounds],
            "1,000,000 clients": [
                "--dataset",
                data,
                "--clients",
                "1000000",
                "--model",
                "mlp-small",
                "--rounds",
                rounds,
            ],
        }
        measured = {job: measure(flags, folder / job) for job, flags in jobs.items()}
    print(f"\n{machine()}\n\n| job | checkpoint | clients that changed | bytes | seconds | share of {SECONDS:g} s |")
    print("|---|---|---|---|---|---|")
    for job, checkpoints in measured.items():
        for number, (seconds, size, changed) in enumerate(checkpoints, 1):
            share = f"{seconds / SECONDS:.3%}"
            print(f"| {job} | {number} | {changed} | {size / 1e6:.1f} MB | {seconds:.2f} | {share} |")


if __name__ == "__main__":
    main()
