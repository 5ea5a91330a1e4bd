"""hggtopk with error feedback against torch.topk without, and against one read of the memory.

    python -m benchmarks.selection

``of topk`` is hggtopk's time over the time of ``torch.topk(x.abs(), k)``; ``passes`` is hggtopk's time over the time of
``x.amax()``. In every turn hggtopk adds its residual, selects exactly k coordinates and clears these in the residual,
as a client would.
"""

from collections.abc import Callable

import numpy as np
import torch

from fedsparse.compression.client_state import ClientState
from fedsparse.compression.hggtopk import HGGTopK
from fedsparse.compression.selection import Part
from fedsparse.telemetry.timers import medians

SIZES = {100_000: 40, 1_000_000: 15, 10_000_000: 7}
DENSITIES = (0.01, 0.05)
DATA = {
    "normal": lambda rng, n: rng.standard_normal(n, dtype=np.float32),
    "student-t 3": lambda rng, n: rng.standard_t(3, n).astype(np.float32),
}


def client(draw: Callable, n: int, k: int) -> Callable[[], None]:
    """A client's selection over many rounds: two updates in turn, and a residual."""
    rng = np.random.default_rng(1)
    updates = [draw(rng, n), draw(rng, n)]
    state, selection, turn = ClientState(np.zeros(n, np.float32)), HGGTopK(), [0]

    def select() -> None:
        turn[0] += 1
        vector, indices = selection.select(updates[turn[0] % 2], state, [Part(0, n, k)], turn[0], 0)
        assert indices is not None
        vector[indices[0]] = 0.0

    return select


def main() -> None:
    print(
        f"{'elements':>10} {'density':>7} {'data':>12} {'topk ms':>8} {'hggtopk ms':>10} {'of topk':>8} {'passes':>6}"
    )
    for n, repeats in SIZES.items():
        for density in DENSITIES:
            for name, draw in DATA.items():
                k = round(density * n)
                x = torch.from_numpy(draw(np.random.default_rng(0), n))
                tasks = {
                    "topk": lambda x=x, k=k: torch.topk(x.abs(), k),
                    "hggtopk": client(draw, n, k),
                    "amax": lambda x=x: x.amax(),
                }
                t = medians(tasks, repeats)
                print(
                    f"{n:>10} {density:>7} {name:>12} {1e3 * t['topk']:>8.2f} {1e3 * t['hggtopk']:>10.2f} "
                    f"{t['hggtopk'] / t['topk']:>8.3f} {t['hggtopk'] / t['amax']:>6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
