"""The rows that need a GPU; without one, one line that says so.

    python -m benchmarks.gpu

Wall-clock seconds between two synchronisations, interleaved, medians. Noise images: what is measured does not depend on
what they show.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks.common import Federation, machine, medians, wall, write_images
from fedsparse.cohort import TOGETHER
from fedsparse.compression.hggtopk import HGGTopK
from fedsparse.compression.selection import Part
from fedsparse.compression.state import ClientState
from fedsparse.config import Config
from fedsparse.engine import LocalGrid

SETTINGS = {"compressor": "none", "values": "f32", "error_feedback": False, "device": "cuda", "lr": 0.01}


def batching(folder: Path, repeats: int) -> None:
    """A cohort of ten at once, and one by one."""
    data = write_images(folder / "images.npz", 60_000)
    for model in ("mlp-small", "mlp", "cnn-small", "cnn"):
        config = Config.from_mapping({**SETTINGS, "dataset": data, "model": model})
        with LocalGrid("clients.app:app", config.clients, together="clients.app:train_together") as grid:
            federation = Federation(config, grid, grid.get_node_ids())

            def grouped(size: int, grid: LocalGrid = grid, federation: Federation = federation) -> None:
                grid.group = size
                federation.round()

            tasks = {"together": partial(grouped, TOGETHER), "one by one": partial(grouped, 1)}
            seconds = medians(tasks, repeats, wall)
        times = seconds["one by one"] / seconds["together"]
        print(f"| cohort batching, {model}, times faster | {times:.2f} | {1000 * seconds['together']:.0f} ms a round |")


def resnet(folder: Path, repeats: int) -> None:
    """The dense ResNet-18 round of 100 clients of CIFAR-10's size: 10 of them, five local epochs, bfloat16."""
    data = write_images(folder / "cifar.npz", 50_000, side=32, channels=3)
    config = Config.from_mapping({**SETTINGS, "dataset": data, "model": "resnet18", "epochs": 5, "amp": "bf16"})
    with LocalGrid("clients.app:app", config.clients) as grid:
        seconds = medians({"round": Federation(config, grid, grid.get_node_ids()).round}, repeats, wall)["round"]
    print(
        f"| dense ResNet-18, 10 clients of 500 images, 5 epochs | {seconds:.2f} s | 999 in {16.65 * seconds:.0f} min |"
    )


def selection(n: int, k: int, repeats: int) -> None:
    """hggtopk with its residual over torch.topk without one."""
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
