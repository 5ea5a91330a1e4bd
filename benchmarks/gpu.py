"""The measurements that need a GPU; without a GPU, one line that says so.

    python -m benchmarks.gpu

Wall-clock seconds between two synchronisations, interleaved, medians. The images are noise, because speed does not
depend on their content.
"""

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.common import Federation, machine, wall, write_images
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.hggtopk import HGGTopK
from fedsparse.compression.selection import Part
from fedsparse.config import Config
from fedsparse.config.yaml_file import read_yaml
from fedsparse.engine import LocalGrid
from fedsparse.telemetry.timers import medians
from fedsparse.training.stacked import TOGETHER

SETTINGS = {"compressor": "none", "values": "f32", "error_feedback": False, "device": "cuda", "lr": 0.01}


def batching(folder: Path, repeats: int) -> None:
    """A cohort of ten at once, and one by one."""
    data = write_images(folder / "images.npz", 60_000)
    for model in ("mlp-small", "mlp", "cnn-small", "cnn"):
        config = Config.from_mapping({**SETTINGS, "dataset": data, "model": model})
        with LocalGrid(
            "fedsparse.clients.client_app:app", config.clients, together="fedsparse.clients.client_app:train_together"
        ) as grid:
            federation = Federation(config, grid, grid.get_node_ids())

            def grouped(size: int, grid: LocalGrid = grid, federation: Federation = federation) -> None:
                grid.group = size
                federation.round()

            tasks = {"together": partial(grouped, TOGETHER), "one by one": partial(grouped, 1)}
            seconds = medians(tasks, repeats, wall)
        times = seconds["one by one"] / seconds["together"]
        print(f"| cohort batching, {model}, times faster | {times:.2f} | {1000 * seconds['together']:.0f} ms a round |")


def resnet(folder: Path, repeats: int) -> None:
    """Rounds of ``configs/ssfl-cifar10.yaml``: ten clients of CIFAR-10's size, five epochs, dense, bfloat16.

    One worker overlaps coding with training; four workers alternate on the GPU.
    """
    data = write_images(folder / "cifar.npz", 50_000, side=32, channels=3)
    settings = read_yaml(Path(__file__).parents[1] / "configs" / "ssfl-cifar10.yaml")
    for workers in (1, 4):
        config = Config.from_mapping(settings | {"dataset": data, "device": "cuda", "workers": workers})
        with LocalGrid("fedsparse.clients.client_app:app", config.clients, workers=workers) as grid:
            grid.overlap(torch.device("cuda"))
            federation = Federation(config, grid, grid.get_node_ids())
            seconds = medians({"round": federation.round}, repeats, wall)["round"]
            share = busy(federation.round)
        what = f"dense ResNet-18, {workers} worker{'s' * (workers > 1)}"
        print(f"| {what} | {seconds:.2f} s a round, GPU busy {share:.0f} % | 999 such in {16.65 * seconds:.0f} min |")


def busy(task: Callable[[], object]) -> float:
    """Percent of the time of ``task`` in which a kernel ran on the first GPU, by nvidia-smi every 100 ms."""
    watch = ["nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as process:
        task()
        process.terminate()
        output, _ = process.communicate()
    return statistics.mean(float(line) for line in output.split())


def selection(n: int, k: int, repeats: int) -> None:
    """Seconds of hggtopk, which adds a residual, over seconds of torch.topk, which does not."""
    update, state, hggtopk = torch.randn(n, device="cuda"), ClientState(torch.zeros(n, device="cuda")), HGGTopK()
    tasks = {
        "hggtopk": lambda: hggtopk.select(update, state, [Part(0, n, k)], 1, 0),
        "topk": lambda: torch.topk(update.abs(), k),
    }
    seconds = medians(tasks, repeats, wall)
    ratio = seconds["hggtopk"] / seconds["topk"]
    print(f"| hggtopk over torch.topk, {n:,} elements, {k:,} kept | {ratio:.2f} | {1000 * seconds['topk']:.2f} ms |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    if not torch.cuda.is_available():
        print("no CUDA GPU here: nothing measured")
        return
    print(f"{torch.cuda.get_device_name()}; {machine()}\n\n| what | measured | |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        batching(Path(folder), repeats)
        resnet(Path(folder), repeats)
    selection(10_000_000, 100_000, 5 * repeats)


if __name__ == "__main__":
    main()
