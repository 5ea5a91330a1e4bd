"""The speed of low-rank layers: forward and backward of an MLP and of a transformer, against their dense layers.

    python -m benchmarks.lowrank_layers [--device cuda]

``faster`` is the median time of the dense network over that of the factored one: of the processor, so that other work
on the machine counts little, but on a GPU by the wall. ``weights`` is the share of weights that is left. ``full`` and
``fedpara`` factor all layers, and ``ends dense`` all but the first and the last, as the default dense-layers does.
``selective`` does the same with its default lowrank-min-size, because all these layers are larger; ``large`` is as with
a lowrank-min-size that only the layers with the most weights reach.

Whole runs are computed from these times. ``progressive`` is dense for a third of its steps, and then of a rank;
``dynamic`` is dense for a third, and then of ranks 1/4, 1/8 and 1/16 for equal parts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedsparse.lowrank import factor_, smaller_rank
from fedsparse.lowrank.factorable_layers import factorable
from fedsparse.models.gpt2 import GPT2
from fedsparse.telemetry.timers import medians

WIDTHS = (768, 1024)
LAYERS, BLOCKS, BATCH, TOKENS = 4, 2, 64, 128
CASES = {
    "off": ("off", 1.0),
    **{f"full, rank 1/{n}": ("full", 1 / n) for n in (4, 8, 16, 32)},
    "ends dense, rank 1/8": ("ends dense", 1 / 8),
    "large, rank 1/8": ("large", 1 / 8),
    "fedpara, rank 1/8": ("fedpara", 1 / 8),
}
RUNS = {"progressive, rank 1/4": (4,), "progressive, rank 1/8": (8,), "dynamic": (4, 8, 16)}
DENSE_FOR = 1 / 3  # of a run that switches
CALLS = 7


def mlp(width: int) -> tuple[nn.Module, Tensor]:
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(BATCH, width)


def transformer(width: int) -> tuple[nn.Module, Tensor]:
    return GPT2(256, TOKENS, BLOCKS, width // 64, width), torch.randint(256, (4, TOKENS))


def step_of(model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad()
        model(inputs).square().mean().backward()
        if inputs.is_cuda:
            torch.cuda.synchronize()

    return step


def factored(model: nn.Module, case: str, share: float) -> nn.Module:
    """The network with its layers factored as the case says."""
    layers = factorable(model, [])
    names, most = list(layers), max(layer.weight.numel() for layer in layers.values())
    if case == "off":
        return model
    if case == "ends dense":
        names = names[1:-1]
    if case == "large":
        names = [name for name in names if layers[name].weight.numel() == most]
    form = "fedpara" if case == "fedpara" else "svd"
    return factor_(model, {name: smaller_rank(form, layers[name], share) for name in names}, form, seed=0)


def of_whole_runs(seconds: dict[str, float]) -> dict[str, float]:
    """The seconds of a step, on average over runs that begin dense."""
    after = {name: statistics.mean(seconds[f"full, rank 1/{n}"] for n in ranks) for name, ranks in RUNS.items()}
    return {name: DENSE_FOR * seconds["off"] + (1 - DENSE_FOR) * taken for name, taken in after.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    clock = time.process_time if device == "cpu" else time.perf_counter
    print(f"{'network':>12} {'width':>5} {'':>21} {'weights':>8} {'ms':>8} {'faster':>7}")
    for make in (mlp, transformer):
        for width in WIDTHS:
            steps, sizes = {}, {}
            for name, case in CASES.items():
                torch.manual_seed(0)
                model, inputs = make(width)
                model = factored(model, *case).to(device)
                sizes[name], steps[name] = sum(p.numel() for p in model.parameters()), step_of(model, inputs.to(device))
            seconds = medians(steps, CALLS, clock)
            for name, taken in (seconds | of_whole_runs(seconds)).items():
                left = f"{sizes[name] / sizes['off']:.1%}" if name in sizes else ""
                row = f"{make.__name__:>12} {width:>5} {name:>21} {left:>8} {1000 * taken:>8.1f}"
                print(f"{row} {seconds['off'] / taken:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
