"""Top-k by magnitude with a histogram-guided threshold: the true top-k for little more than one pass over the memory.

The ideas are those of HGG-TopK, "history-guided gradient top-k" (published as code, github.com/wzx666-yf/HGG-topk): a
logarithmic histogram of the magnitudes, and the last round's threshold as a guide. Here a strided sample gives a
threshold that slightly more than k magnitudes reach. ONE fused pass adds the residual, compares and collects these
candidates. They are trimmed to exactly k; of equal magnitudes the first are kept. A threshold that was too high is
lowered, and the pass repeated. So the sample decides how long the selection takes, but never its result.

Vectors on the CPU are NumPy arrays, because ``flatnonzero`` and comparisons are many times faster there than torch's.
Vectors on a device stay on it.
"""

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.arrays import Array, overwritable
from fedsparse.compression.client_state import ClientState
from fedsparse.compression.selection import Indices, Part
from fedsparse.compression.topk import largest

SAMPLE = 1 << 14  # sampled elements of a large vector; the threshold's error falls with the root of their number
CHUNK = 1 << 16  # elements: update, residual and magnitudes of a chunk stay in a core's L2 cache together
BIN_SHIFT = 17  # bits of a float32 below the histogram's bins: 64 bins an octave


class HGGTopK:
    """Keeps exactly the ``k`` largest magnitudes of each part; on the CPU a client's memory holds each threshold."""

    def select(
        self, update: Any, state: ClientState, parts: list[Part], round: int, seed: int
    ) -> tuple[Array, Indices]:
        """See :meth:`FusedSelection.select`."""
        residual: Any = state.residual
        vector, on_cpu = update if residual is None else overwritable(residual), isinstance(update, np.ndarray)
        guides = state.memory.get("thresholds")
        if guides is None or len(guides) != len(parts):
            guides = np.zeros(len(parts), np.float32)
        found: Any
        thresholds, indices = np.zeros(len(parts), np.float32), []
        for i, (start, stop, k) in enumerate(parts):
            part = slice(start, stop)
            old = None if residual is None else residual[part]
            if on_cpu:
                found, thresholds[i] = top_indices(update[part], old, vector[part], k, float(guides[i]))
            else:
                found = top_indices_on_device(update[part], old, vector[part], k)
            found += start
            indices.append(found)
        if residual is not None:
            state.residual = vector
        if on_cpu:
            state.memory["thresholds"] = thresholds
        return vector, indices


def top_indices(
    update: np.ndarray, residual: np.ndarray | None, out: np.ndarray, k: int, guide: float = 0.0
) -> tuple[np.ndarray, float]:
    """Writes ``residual + update`` to ``out`` and finds its ``k`` largest magnitudes.

    Args:
        update: float32, shape ``(n,)``, finite.
        residual: like ``update``. With None, ``out`` must be ``update``, and nothing is written.
        out: float32, shape ``(n,)``; may be ``residual``.
        k: 1 to n.
        guide: the threshold that this function returned last time, or 0.

    Returns:
        Sorted int64 indices, exactly ``k``; and the threshold that candidates had to reach.

    Raises:
        FloatingPointError: so many elements are NaN that fewer than ``k`` remain.
    """
    stride = sample_stride(update.size)
    sample = np.abs(update[::stride] if residual is None else update[::stride] + residual[::stride])
    share, slack = k / update.size, 1
    threshold = guide if guide_fits(sample, share, guide, stride) else sampled_threshold(sample, share, stride)
    candidates, magnitudes = collect(update, residual, out, threshold)
    while candidates.size < k:
        if threshold == 0.0:
            raise FloatingPointError("residual + update has NaN")
        slack *= 2
        threshold = sampled_threshold(sample, min(1.0, slack * share), stride)
        candidates, magnitudes = collect(out, None, out, threshold)
    return candidates.take(largest(magnitudes, k)), threshold


def sample_stride(n: int) -> int:
    """The distance between sampled elements of ``n``, to sample a 16th of a small vector, ``SAMPLE`` of a large one.

    The stride is odd, because an even stride could always hit the same columns of a matrix.
    """
    return max(1, n // min(SAMPLE, max(SAMPLE // 8, n // 16))) | 1


def guide_fits(sample: np.ndarray, share: float, guide: float, stride: int) -> bool:
    """Whether ``guide`` may serve as the threshold: enough elements of the sample reach it, but not too many.

    Above one and a half times the wanted number, the extra candidates take longer than a new threshold.
    """
    if guide <= 0.0:
        return False
    count, wanted = np.count_nonzero(sample >= np.float32(guide)), sampled_count(sample.size, share, stride)
    return bool(wanted <= count <= 1.5 * wanted)


def sampled_count(size: int, share: float, stride: int) -> int:
    """How many of a sample of ``size`` must reach a threshold so that at least ``share`` of all elements reach it.

    The count c solves c - 3 sqrt(c) = share * size, because sqrt(c) is the standard deviation of such a count. A
    ``stride`` of 1 means that the sample is the whole vector, so that the count is exact.
    """
    wanted = share * size
    return math.ceil(((3 + math.sqrt(9 + 4 * wanted)) / 2) ** 2 if stride > 1 else wanted)


def sampled_threshold(sample: np.ndarray, share: float, stride: int) -> float:
    """A magnitude that at least ``share`` of all elements reach, but few more, from a logarithmic histogram.

    The bits of a non-negative float32, read as an integer, are a piecewise linear logarithm of the number. So the upper
    bits are the number's bin, also for zero and denormals, without computing a logarithm.
    """
    wanted = sampled_count(sample.size, share, stride)
    if wanted >= sample.size:
        return 0.0
    bins = sample.view(np.int32) >> BIN_SHIFT
    lowest = int(bins.min())
    reached = np.bincount(bins - lowest)[::-1].cumsum()
    chosen = lowest + reached.size - 1 - int(np.searchsorted(reached, wanted))
    return float(np.int32(chosen << BIN_SHIFT).view(np.float32))


def collect(
    update: np.ndarray, residual: np.ndarray | None, out: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The fused pass: writes ``residual + update`` to ``out`` and collects the magnitudes that reach ``threshold``.

    Returns:
        Their sorted int64 indices, and the magnitudes themselves.
    """
    magnitudes, hits = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.bool_)
    bound, found, reached = np.float32(threshold), [], []
    for start in range(0, update.size, CHUNK):
        s = slice(start, start + CHUNK)
        chunk = out[s]
        if residual is not None:
            np.add(update[s], residual[s], out=chunk)
        magnitude, hit = magnitudes[: chunk.size], hits[: chunk.size]
        np.abs(chunk, out=magnitude)
        np.greater_equal(magnitude, bound, out=hit)
        indices = positions(hit)
        reached.append(magnitude.take(indices))
        indices += start
        found.append(indices)
    return np.concatenate(found), np.concatenate(reached)


def positions(hits: np.ndarray) -> np.ndarray:
    """``np.flatnonzero`` for arrays with few true bools, in half the time.

    ``np.flatnonzero`` is slow for an array that is true in up to a tenth of its places, because it branches at each
    bool. Here a first call finds the words of eight bools that hold a true bool, and a second call finds the true bools
    in these words; a larger share of both arrays is true.
    """
    if hits.size % 8:
        return np.flatnonzero(hits)
    words = hits.view(np.uint64)
    held = np.flatnonzero(words != 0)
    found = np.flatnonzero(words.take(held).view(np.bool_))
    held -= np.arange(held.size)
    held *= 8  # now by how many bools each word moved when the empty words were left out
    found += held.take(found >> 3)
    return found


def top_indices_on_device(update: Tensor, residual: Tensor | None, out: Tensor, k: int) -> Tensor:
    """As :func:`top_indices`, but without a guide, because a threshold from the sample takes next to no time here.

    The CPU waits for the device once, to learn how many candidates there are.
    """
    if update.is_cuda and find_spec("triton"):
        from fedsparse.compression.fused import collect_on_device
    else:
        collect_on_device = collect_with_torch
    stride = sample_stride(update.numel())
    sample = (update[::stride] if residual is None else update[::stride] + residual[::stride]).abs()
    wanted = min(sampled_count(sample.numel(), k / update.numel(), stride), sample.numel())
    threshold = torch.topk(sample, wanted, sorted=False).values.min()
    capacity = min(2 * wanted * stride, update.numel())
    candidates = collect_on_device(update, residual, out, threshold, capacity)
    if candidates is None or candidates.numel() < k:  # the sample was misleading
        return largest(out.abs(), k)
    return candidates[largest(out[candidates].abs(), k)]


def collect_with_torch(
    update: Tensor, residual: Tensor | None, out: Tensor, threshold: Tensor, capacity: int
) -> Tensor | None:
    """As ``fused.collect_on_device``, where there is no Triton; it collects more than ``capacity`` too."""
    if residual is not None:
        torch.add(update, residual, out=out)
    return torch.nonzero(out.abs() >= threshold).squeeze(1)
