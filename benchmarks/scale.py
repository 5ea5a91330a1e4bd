"""A federation of 1,000,000 clients against one of 100: the same cohort, the same two images a client.

    python -m benchmarks.scale

Measures whole runs of main.py, each in its own process, and the CPU time of rounds alone. The memory of the images,
linear in the data, has a column of its own; all other numbers should not depend on the number of clients.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Federation, machine, write_images
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.telemetry.timers import medians

MAIN = Path(__file__).parents[1] / "main.py"
FEDERATIONS = (100, 1_000_000)


def run(clients: int, rounds: int, folder: Path) -> dict[str, float]:
    """CPU seconds of a round and of a whole run, and the peak of resident memory in bytes."""
    data = write_images(folder / f"{clients}.npz", 2 * clients, side=4)
    flags = f"--clients {clients} --rounds {rounds} --eval-every {rounds} --model mlp-small --workers 1 --device cpu"
    command = [sys.executable, str(MAIN), *flags.split(), "--dataset", data, "--logdir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"main.py failed with {clients} clients")
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        seconds = fresh.apply(round_seconds, (data, clients, rounds))
    return {
        "round": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": 1024 * usage.ru_maxrss,  # Linux counts kilobytes
        "data": 2 * clients * (4 * 4 + 8),
    }


def round_seconds(data: str, clients: int, rounds: int) -> float:
    settings = {"dataset": data, "clients": clients, "model": "mlp-small", "device": "cpu"}
    config = Config.from_mapping(settings)
    with LocalGrid("fedsparse.clients.client_app:app", clients) as grid:
        federation = Federation(config, grid, grid.get_node_ids())
        return medians({"round": federation.round}, rounds)["round"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    print(f"{machine()}\n\n| clients | CPU of a round | CPU of the run | peak memory | of which images and labels |")
    print("|---|---|---|---|---|")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for clients in FEDERATIONS:
            results.append(r := run(clients, arguments.rounds, Path(folder)))
            print(
                f"| {clients:,} | {1000 * r['round']:.1f} ms | {r['cpu']:.1f} s | {r['peak'] / 2**20:.0f} MiB "
                f"| {r['data'] / 2**20:.0f} MiB |",
                flush=True,
            )
    small, large = results
    memory = (large["peak"] - large["data"]) / (small["peak"] - small["data"])
    print(f"\na round: {large['round'] / small['round']:.2f} times; memory beside the data: {memory:.2f} times")


if __name__ == "__main__":
    main()
