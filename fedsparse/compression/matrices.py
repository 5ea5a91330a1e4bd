"""Layers as matrices: which of them travel as factors, which dense, and what of the whole arrives."""

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression import wire
from fedsparse.compression.client_state import Array, ClientState, to_numpy
from fedsparse.compression.factors import factor_counts, matrix_shape, product
from fedsparse.compression.values import ValueCodec
from fedsparse.vector import Entry, Layout


class Factorization(Protocol):
    """The other kind of compressor: two factors for a layer instead of some of its coordinates.

    Attributes:
        rank: the largest rank; 0 for what the density allows.
    """

    rank: int

    def factor(self, matrix: Tensor, rank: int, state: ClientState, name: str, seed: int) -> tuple[Tensor, Tensor]:
        """See ``LowRank.factor``."""
        ...


def code_matrices(
    method: Factorization, layout: Layout, vector: Array, density: float, values: ValueCodec, state: ClientState,
    seed: int,
) -> tuple[list[wire.Coded], np.ndarray, int]:  # fmt: skip
    """Codes the parameters of ``layout`` layer by layer.

    A convolution of shape (out, in, height, width) is a matrix (out, in height width). Vectors, and matrices that are
    shorter as they are, go dense; dense neighbours share a segment.

    Args:
        vector: float32, shape ``(layout.parameters,)``.
        density: the share of a matrix's size that its factors may have, at least rank 1.

    Returns:
        Segments that cover the parameters; what the receiver will make of them, float32; how many values they hold.
    """
    segments: list[wire.Coded] = []
    received, numbers = np.empty(layout.parameters, np.float32), layout.parameters
    done = 0  # coordinates coded so far; those from here on wait for a dense segment

    def flush(until: int) -> None:
        nonlocal done
        if until > done:
            counts = np.array([until - done])
            # A coding may return a view of its values, and the residual is about to change.
            body = values.encode(np.array(to_numpy(vector[done:until])), counts, seed)
            received[done:until] = values.decode(memoryview(body), counts)
            segments.append(wire.Coded(until - done, None, values, body))
        done = until

    for i, entry in enumerate(layout.layers):
        rank = allowed_rank(entry, method.rank, density, values)
        if rank:
            flush(entry.start)
            coded, received[entry.slice] = code_factors(
                method, entry, vector[entry.slice], rank, values, state, seed + i
            )
            segments.append(coded)
            numbers += factor_counts(entry, coded.rank or 0).sum() - entry.size
            done = entry.start + entry.size
    flush(layout.parameters)
    return segments, received, int(numbers)


def allowed_rank(entry: Entry, rank: int, density: float, values: ValueCodec) -> int:
    """The largest rank for a layer; 0 where its factors would not be shorter than the layer by two segment headers."""
    if len(entry.shape) < 2 or not entry.size:
        return 0
    rows, columns = matrix_shape(entry)
    rank = min(rank or max(1, int(density * entry.size / (rows + columns))), rows, columns)
    dense = min(values.size(np.array([entry.size])), 4 * entry.size)
    while rank and values.size(factor_counts(entry, rank)) + 2 * wire.SEGMENT.size > dense:
        rank //= 2
    return rank


def code_factors(
    method: Factorization, entry: Entry, part: Array, rank: int, values: ValueCodec, state: ClientState, seed: int
) -> tuple[wire.Coded, np.ndarray]:
    """The segment of one layer, and what it decodes to, float32, shape ``(entry.size,)``."""
    matrix = torch.as_tensor(part).view(matrix_shape(entry))
    largest = float(matrix.abs().max())
    scale = largest if largest > 0 else 1.0  # so that no square leaves the range of float32
    p, q = method.factor(matrix / scale, rank, state, entry.name, seed % (1 << 63))
    half = math.sqrt(scale)  # for each factor: float16 has neither very small numbers nor very large ones
    columns = np.concatenate([to_numpy((factor * half).T.reshape(-1)) for factor in (p, q)])
    counts = factor_counts(entry, p.shape[1])
    body = values.encode(columns, counts, seed % (1 << 63))
    received = product(values.decode(memoryview(body), counts), entry)
    return wire.Coded(entry.size, None, values, body, rank=p.shape[1]), received
