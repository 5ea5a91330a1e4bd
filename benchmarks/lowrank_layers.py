"""The speed of low-rank layers: forward and backward of an MLP and of a transformer, against their dense layers.

    python -m benchmarks.lowrank_layers [--device cuda]

``faster`` is the median time of the dense network over that of the factored one: of the processor, so that other work
on the machine counts little, but on a GPU by the wall. ``weights`` is the share of weights that is left. A progressive
or dynamic run computes as ``off`` until its switch, and as ``svd`` from then on; a selective run factors some layers.
"""

import argparse
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
CASES = (("off", 1.0), ("svd", 1 / 4), ("svd", 1 / 8), ("fedpara", 1 / 8))
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    print(f"{'network':>12} {'width':>5} {'form':>8} {'rank':>6} {'weights':>8} {'ms':>8} {'faster':>7}")
    for make in (mlp, transformer):
        for width in WIDTHS:
            models = []
            for form, share in CASES:
                torch.manual_seed(0)
                model, inputs = make(width)
                if form != "off":
                    ranks = {name: smaller_rank(form, layer, share) for name, layer in factorable(model, []).items()}
                    factor_(model, ranks, form, seed=0)
                models.append(model.to(device))
            sizes = [sum(p.numel() for p in model.parameters()) for model in models]
            steps = {str(case): step_of(model, inputs.to(device)) for case, model in zip(CASES, models, strict=True)}
            clock = time.process_time if device == "cpu" else time.perf_counter
            seconds = list(medians(steps, CALLS, clock).values())
            for (form, share), size, taken in zip(CASES, sizes, seconds, strict=True):
                row = f"{make.__name__:>12} {width:>5} {form:>8} {share:>6.3f} {size / sizes[0]:>8.1%}"
                print(f"{row} {1000 * taken:>8.1f} {seconds[0] / taken:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
