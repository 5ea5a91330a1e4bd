"""Bits an index, payload size, and the speed of the wire format, on uniform indices and on real updates.

    python -m benchmarks.wire

``of entropy`` is the bits of an index over log2 C(n, k) / k, the least for uniform indices; indices of real updates
cluster, and may take fewer. ``x dense`` is dense float32 over the payload with sign values. ``M/s`` are millions of
selected elements a second, for encoding (indices and float32 values to payload) and decoding (payload to indices and
values, all checks) together; ``add`` is the same for adding the update to a float64 accumulator.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fedsparse.compression.hggtopk import top_indices
from fedsparse.compression.indices import pack
from fedsparse.compression.values import value_codec
from fedsparse.compression.wire import Coded, decode, encode
from fedsparse.data import load_dataset
from fedsparse.models import build_model
from fedsparse.telemetry.timers import medians
from fedsparse.vector import Entry, FlatModel, Layout

SIZES = (25_000, 200_000, 1_000_000, 10_000_000)
DENSITIES = (0.001, 0.01, 0.05)


def real_update(model: str) -> np.ndarray:
    """The update of ``model`` after two epochs on 600 images of three classes, as of a client of a skewed partition."""
    data = load_dataset()
    flat = FlatModel(build_model(model, data.input_shape, data.classes, "group", 0))
    before, chosen = flat.vector.clone(), torch.nonzero(data.y_train < 3)[:600, 0]
    optimizer = torch.optim.SGD(flat.module.parameters(), lr=0.05)
    torch.manual_seed(0)
    for _ in range(2):
        for batch in chosen[torch.randperm(len(chosen))].split(32):
            optimizer.zero_grad()
            x = (data.x_train[batch].float() - data.mean.view(-1, 1, 1)) / data.std.view(-1, 1, 1)
            cross_entropy(flat.module(x), data.y_train[batch]).backward()
            optimizer.step()
    return (flat.vector - before).numpy()


def cases() -> Iterator[tuple[str, np.ndarray]]:
    for size in SIZES:
        yield "uniform", np.random.default_rng(size).standard_normal(size, dtype=np.float32)
    for model in ("cnn-small", "cnn"):
        yield model, real_update(model)


def entropy(n: int, k: int) -> float:
    """log2 of C(n, k)."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def row(name: str, update: np.ndarray, density: float) -> str:
    n, k = update.size, max(1, round(density * update.size))
    indices, _ = top_indices(update, None, update, k)
    chosen, layout, counts = update[indices], Layout((Entry("all", (n,), 0, n),), n, n), np.array([k])

    def payload(values: str) -> bytes:
        codec = value_codec(values)
        return encode(layout, 1, [Coded(n, indices, codec, codec.encode(chosen, counts, 0), counts)])

    received, accumulator = payload("f32"), np.zeros(n)
    sparse = decode(received, layout)
    seconds = medians(
        {
            "encode": lambda: payload("f32"),
            "decode": lambda: decode(received, layout),
            "add": lambda: sparse.add_to(accumulator, 0.5),
        },
        repeats=7,
    )
    codec, body = pack(indices, n)
    return (
        f"{name:>10} {n:>10} {density:>7} {k:>7} {codec.name:>6} {8 * len(body) / k:>8.2f} "
        f"{8 * len(body) / entropy(n, k):>10.3f} {4 * n / len(payload('sign')):>7.0f} "
        f"{k / (seconds['encode'] + seconds['decode']) / 1e6:>6.1f} {k / seconds['add'] / 1e6:>6.1f}"
    )


def main() -> None:
    print(
        f"{'update':>10} {'elements':>10} {'density':>7} {'k':>7} {'codec':>6} {'bits':>8} "
        f"{'of entropy':>10} {'x dense':>7} {'M/s':>6} {'add':>6}"
    )
    for name, update in cases():
        for density in DENSITIES:
            print(row(name, update, density), flush=True)


if __name__ == "__main__":
    main()
