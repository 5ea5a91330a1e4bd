"""Low-rank compressors against the singular value decomposition: relative error and speed.

    python -m benchmarks.lowrank

Matrices with singular values 1/i, at rank 10 %. ``of best`` is the relative error over that of the truncated SVD;
``faster`` is the time of ``torch.linalg.svd(full_matrices=False)`` over the method's.
"""

import torch
from torch import Tensor

from fedsparse.compression.lowrank import LowRank
from fedsparse.compression.powersgd import PowerSGD
from fedsparse.telemetry.timers import medians

SHAPES = ((256, 256), (1000, 1000), (5000, 256))
CALLS = 5
WARM_UP = 4  # rounds before powersgd is called warm
METHODS = {
    "lowrank": LowRank(energy=1.0),
    "lowrank, 2 power iterations": LowRank(energy=1.0, power_iterations=2),
    "lowrank, sparse sketch": LowRank(energy=1.0, sparse=True),
    "lowrank, residual iteration": LowRank(energy=1.0, residual_iterations=1),
    "powersgd, warm": PowerSGD(),
}


def spectrum(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix with random singular vectors and singular values 1, 1/2, 1/3 ...; and those values."""
    generator = torch.Generator().manual_seed(seed)
    n = min(rows, columns)
    u, v = (torch.linalg.qr(torch.randn(m, n, generator=generator, dtype=torch.float64)).Q for m in (rows, columns))
    values = 1 / torch.arange(1, n + 1, dtype=torch.float64)
    return (u * values @ v.T).float(), values


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'shape':>12} {'method':>28} {'of best':>8} {'faster':>7}")
    for shape in SHAPES:
        matrix, values = spectrum(*shape)
        rank = min(shape) // 10
        best = float(values[rank:].square().sum().sqrt())
        memories: dict[str, dict] = {name: {} for name in METHODS}
        for memory in (memories["powersgd, warm"],) * WARM_UP:
            METHODS["powersgd, warm"].factor(matrix, rank, memory, "layer", 0)

        def factor(
            name: str, matrix: Tensor = matrix, rank: int = rank, memories: dict = memories
        ) -> tuple[Tensor, Tensor]:
            return METHODS[name].factor(matrix, rank, memories[name], "layer", 0)

        errors = {}
        for name in METHODS:
            p, q = factor(name)
            errors[name] = float((matrix - p @ q.T).norm()) / best
        # Each measurement makes several calls, because after an SVD the caches are colder than during training.
        tasks = {name: lambda name=name: [factor(name) for _ in range(CALLS)] for name in METHODS}
        seconds = medians(tasks | {"svd": lambda matrix=matrix: torch.linalg.svd(matrix, full_matrices=False)}, 5)
        for name in METHODS:
            print(
                f"{shape!s:>12} {name:>28} {errors[name]:>8.3f} {CALLS * seconds['svd'] / seconds[name]:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
