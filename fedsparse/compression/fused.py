"""hggtopk's fused pass on a GPU: one kernel adds the residual and collects the magnitudes that reach a threshold."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def collect_kernel(  # type: ignore[no-untyped-def]
    update, residual, out, threshold, found, count, n, capacity, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    value = tl.load(update + at, mask=inside, other=0.0)
    if ADD:
        value += tl.load(residual + at, mask=inside, other=0.0)
        tl.store(out + at, value, mask=inside)
    hit = (tl.abs(value) >= tl.load(threshold)) & inside
    rank = tl.cumsum(hit.to(tl.int32), 0)
    slot = tl.atomic_add(count, tl.max(rank, 0)) + rank - 1  # the blocks run in any order
    tl.store(found + slot, at, mask=hit & (slot < capacity))


def collect_on_device(
    update: Tensor, residual: Tensor | None, out: Tensor, threshold: Tensor, capacity: int
) -> Tensor | None:
    """Writes ``residual + update`` to ``out``, bit for bit what ``torch.add`` does, and finds the large magnitudes.

    Args:
        update: float32, shape ``(n,)``, contiguous, on a GPU.
        residual: like ``update``. With None, ``out`` must be ``update``, and nothing is written.
        out: like ``update``; may be ``residual``.
        threshold: float32, shape ``()``, on the same GPU, so that the CPU does not wait for it.
        capacity: the most indices to collect.

    Returns:
        The sorted int64 indices of magnitudes >= threshold; None when there are more than ``capacity``. The CPU waits
        only for their count.
    """
    n = update.numel()
    found = torch.empty(capacity, dtype=torch.int64, device=update.device)
    count = torch.zeros((), dtype=torch.int32, device=update.device)
    add = residual is not None
    collect_kernel[(triton.cdiv(n, BLOCK),)](
        update, residual if add else update, out, threshold, found, count, n, capacity, ADD=add, BLOCK=BLOCK
    )
    total = int(count)
    return found[:total].sort().values if total <= capacity else None
