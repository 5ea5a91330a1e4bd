"""Top-k by magnitude with a histogram-guided threshold: the true top-k for little more than one pass over the memory.

The ideas are those of HGG-TopK, "history-guided gradient top-k" (published as code, github.com/wzx666-yf/HGG-topk): a
logarithmic histogram of the magnitudes, and the last round's threshold as a guide. Here a strided sample gives a
threshold that lets slightly more than k through; ONE fused pass adds the residual, compares and collects; the few
candidates are trimmed to exactly k, ties to the lowest index. A threshold that proves too high is lowered and the pass
repeated: the sample decides how long it takes, never the result.

NumPy on the CPU (its ``flatnonzero`` and comparisons beat torch's there by large factors); on a device all stays on it.
"""

import math
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression.client_state import Array, ClientState, beside, buffer_for, to_numpy
from fedsparse.compression.selection import Part, Selected
from fedsparse.compression.topk import largest

SAMPLE = 1 << 14  # the threshold's relative error falls with its root; costs microseconds
CHUNK = 1 << 16  # elements: update, residual and magnitudes of a chunk stay in a core's L2 cache together
BIN_SHIFT = 17  # bits of a float32 below the histogram's bins: 64 bins an octave


class HGGTopK:
    def select(self, update: Array, state: ClientState, parts: list[Part], round: int, seed: int) -> Selected:
        if isinstance(update, Tensor):
            return select_on_device(update, state, parts)
        residual = None if state.residual is None else to_numpy(state.residual)
        vector = update if residual is None else buffer_for(residual)
        guides = state.memory.get("thresholds")
        if guides is None or len(guides) != len(parts):
            guides = np.zeros(len(parts), np.float32)
        thresholds, indices = np.empty(len(parts), np.float32), []
        for i, (start, stop, k) in enumerate(parts):
            s = slice(start, stop)
            found, thresholds[i] = top_indices(
                update[s], None if residual is None else residual[s], vector[s], k, float(guides[i])
            )
            found += start
            indices.append(found)
        if residual is not None:
            state.residual = vector
        state.memory["thresholds"] = thresholds
        return Selected(vector, indices)


def top_indices(
    update: np.ndarray, residual: np.ndarray | None, out: np.ndarray, k: int, guide: float = 0.0
) -> tuple[np.ndarray, float]:
    """Writes ``residual + update`` to ``out`` and finds its ``k`` largest magnitudes.

    Args:
        update: float32, shape ``(n,)``, finite.
        residual: the same, or None; then ``out`` is ``update`` and nothing is written.
        out: float32, shape ``(n,)``; may be ``residual``.
        k: 1 to n.
        guide: the threshold this function returned last time, or 0.

    Returns:
        Sorted int64 indices, exactly ``k``; and the threshold that candidates had to reach.

    Raises:
        FloatingPointError: fewer than ``k`` elements are numbers.
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
    return trim(candidates, magnitudes, k), threshold


def sample_stride(n: int) -> int:
    """The distance between sampled elements: a 16th of a small vector, about ``SAMPLE`` of a large one.

    Odd, so that it does not run in step with rows of a power of two.
    """
    return max(1, n // min(SAMPLE, max(SAMPLE // 8, n // 16))) | 1


def guide_fits(sample: np.ndarray, share: float, guide: float, stride: int) -> bool:
    """Whether ``guide`` lets enough through, by the sample and with three standard deviations to spare, yet few more.

    Half as many again as a new threshold would let through is the most that a guide may: beyond, the candidates cost
    more than the histogram that it saves.
    """
    if guide <= 0.0:
        return False
    count, wanted = np.count_nonzero(sample >= np.float32(guide)), sampled_count(sample.size, share, stride)
    return bool(wanted <= count <= 1.5 * wanted)


def sampled_count(size: int, share: float, stride: int) -> int:
    """How many of a sample of ``size`` must pass a threshold for at least ``share`` of all elements to pass it.

    It is the count c with c - 3 sqrt(c) = share * size: three standard deviations of a sampled count to spare.
    """
    wanted = share * size
    return math.ceil(((3 + math.sqrt(9 + 4 * wanted)) / 2) ** 2 if stride > 1 else wanted)


def sampled_threshold(sample: np.ndarray, share: float, stride: int) -> float:
    """A magnitude that at least ``share`` of all elements reach, but few more: from a logarithmic histogram.

    The bits of a non-negative float32, read as an integer, are already a piecewise linear logarithm of it: its upper
    bits number the bins, down to zero and the denormals, and no logarithm is taken.
    """
    wanted = sampled_count(sample.size, share, stride)
    if wanted >= sample.size:
        return 0.0
    bins = sample.view(np.int32) >> BIN_SHIFT
    lowest = int(bins.min())
    reached = np.bincount(bins - lowest)[::-1].cumsum()
    bin = lowest + reached.size - 1 - int(np.searchsorted(reached, wanted))
    return float(np.int32(bin << BIN_SHIFT).view(np.float32))


def collect(
    update: np.ndarray, residual: np.ndarray | None, out: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The fused pass: ``out = residual + update``; the sorted int64 indices of magnitudes >= threshold, and those."""
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
    """``np.flatnonzero`` of bools of which few are true, for half of its time.

    Up to a tenth of them true, NumPy's branches on each; beyond, it does not. Eight at a time, and then all of the
    eights that hold one, is beyond.
    """
    if hits.size % 8:
        return np.flatnonzero(hits)
    eights = hits.view(np.uint64)
    held = np.flatnonzero(eights != 0)
    found = np.flatnonzero(eights.take(held).view(np.bool_))
    held -= np.arange(held.size)
    held *= 8  # how far each eight stood from where it stands among those held
    found += held.take(found >> 3)
    return found


def trim(candidates: np.ndarray, magnitudes: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` candidates of largest magnitude, in order; of equal ones the first."""
    excess = candidates.size - k
    if excess == 0:
        return candidates
    kth = np.partition(magnitudes, excess)[excess]
    keep = magnitudes > kth
    ties = np.flatnonzero(magnitudes == kth)
    keep[ties[: k - np.count_nonzero(keep)]] = True
    return candidates.compress(keep)


def select_on_device(update: Tensor, state: ClientState, parts: list[Part]) -> Selected:
    """``HGGTopK.select`` where the update is on a device: nothing leaves it, and each part waits for it once."""
    residual = None if state.residual is None else beside(state.residual, update)
    assert not isinstance(residual, np.ndarray)
    vector = update if residual is None else residual
    indices = []
    for start, stop, k in parts:
        s = slice(start, stop)
        found = top_indices_on_device(update[s], None if residual is None else residual[s], vector[s], k)
        indices.append(found + start)
    if residual is not None:
        state.residual = vector
    return Selected(vector, indices)


def top_indices_on_device(update: Tensor, residual: Tensor | None, out: Tensor, k: int) -> Tensor:
    """``top_indices`` for tensors, without a guide: a threshold from the sample costs next to nothing here."""
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
    if candidates is None or candidates.numel() < k:  # the sample misled
        return largest(out.abs(), k)
    return candidates[largest(out[candidates].abs(), k)]


def collect_with_torch(
    update: Tensor, residual: Tensor | None, out: Tensor, threshold: Tensor, capacity: int
) -> Tensor | None:
    """``fused.collect_on_device`` where there is no Triton."""
    if residual is not None:
        torch.add(update, residual, out=out)
    return torch.nonzero(out.abs() >= threshold).squeeze(1)
