"""Helpers of several test files: small layouts, difficult vectors, top-k by sorting, every combination of a codec."""

import itertools
import math

import numpy as np
import torch
from hypothesis import strategies as st

from fedsparse.catalogue import COMPRESSORS, VALUES
from fedsparse.compression import ClientState, decode
from fedsparse.config.presets import FACTORIZATIONS, FINE_VALUES
from fedsparse.vector import Entry, Layout

torch.set_num_threads(1)  # as in clients, because spinning OpenMP threads slow small products many times


def layout_of(*sizes: int, buffers: tuple[int, ...] = ()) -> Layout:
    """A layout with parameters ``layer0, layer1, ...`` and buffers ``buffer0, ...`` of the given sizes."""
    entries, start = [], 0
    for group, name in ((sizes, "layer"), (buffers, "buffer")):
        for i, size in enumerate(group):
            entries.append(Entry(f"{name}{i}", (size,), start, size))
            start += size
    return Layout(tuple(entries), sum(sizes), start)


def layout_of_shapes(*shapes: tuple[int, ...], buffers: int = 0) -> Layout:
    """A layout with parameters ``layer0, layer1, ...`` of the given shapes, and perhaps a buffer."""
    entries, start = [], 0
    for i, shape in enumerate(shapes):
        entries.append(Entry(f"layer{i}", shape, start, math.prod(shape)))
        start += entries[-1].size
    if buffers:
        entries.append(Entry("buffer", (buffers,), start, buffers))
    return Layout(tuple(entries), start, start + buffers)


def top_by_sorting(vector: np.ndarray, k: int) -> np.ndarray:
    """The correct result: sorted indices of the k largest magnitudes, the first ones among equal magnitudes."""
    return np.sort(np.argsort(-np.abs(vector.astype(np.float64)), kind="stable")[:k])


def draw_vector(kind: str, n: int, seed: int) -> np.ndarray:
    """A float32 vector of ``n`` elements; ``kind`` names its difficulty."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(n)
    vectors = {
        "normal": normal,
        "heavy-tailed": rng.standard_t(1.5, n),
        "zeros": np.zeros(n),
        "mostly zeros": np.where(rng.random(n) < 0.03, normal, 0),
        "constant": np.full(n, -0.25),
        "ties": rng.integers(-2, 3, n),
        "denormals": normal * 1e-41,
        "tiny and huge": normal * 10.0 ** rng.integers(-40, 30, n),
        "sorted": np.sort(normal),
        "one outlier": np.where(np.arange(n) == seed % n, 1e9, 1e-9),
    }
    return vectors[kind].astype(np.float32)


def clipped(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """TernGrad's clipping: each group at 2.5 times its root mean square."""
    groups = [g.astype(np.float64) for g in np.split(values, counts.cumsum()[:-1])]
    limits = [2.5 * np.sqrt(np.square(g).mean()) if g.size else 0.0 for g in groups]
    return np.concatenate([np.clip(g, -limit, limit) for g, limit in zip(groups, limits, strict=True)])


KINDS = (
    "normal", "heavy-tailed", "zeros", "mostly zeros", "constant",
    "ties", "denormals", "tiny and huge", "sorted", "one outlier",
)  # fmt: skip
vectors = st.builds(draw_vector, st.sampled_from(KINDS), st.integers(1, 400), st.integers(0, 2**32 - 1))

LAYOUT = layout_of(300, 1, 40, 200, buffers=(6, 6))
SCOPES = ("global", "layer")
SELECTIONS = [name for name in COMPRESSORS if name not in FACTORIZATIONS]
COMBINATIONS = list(itertools.product(SELECTIONS, VALUES, SCOPES))
ALL = COMBINATIONS + list(itertools.product(FACTORIZATIONS, FINE_VALUES, ["global"]))


def updates(rounds: int, layout=LAYOUT, kind: str = "normal"):
    return [draw_vector(kind, layout.size, seed) for seed in range(rounds)]


def run(codec, rounds, state=None, kind="normal"):
    """Encodes ``rounds`` updates, each acknowledged; returns the dense decoded ones and the state."""
    state, sent = state or ClientState(), []
    for round, update in enumerate(updates(rounds, codec.layout, kind), 1):
        codec.settle(state, round - 1)
        payload, _ = codec.encode(update, state, round=round, seed=round)
        sent.append(decode(payload, codec.layout).to_dense())
    return sent, state
