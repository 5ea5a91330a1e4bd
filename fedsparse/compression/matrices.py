"""Layers as matrices: decides which layers travel as factors and which entries travel dense, and codes them."""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedsparse.compression import wire
from fedsparse.compression.arrays import Array, to_numpy
from fedsparse.compression.factors import factor_counts, matrix_shape
from fedsparse.compression.values import F32, ValueCodec
from fedsparse.vector import Entry, Layout


class Factorization(Protocol):
    """A compressor that replaces a layer by two thin factors. One instance serves all clients.

    An attribute ``rank`` above 0 is the largest rank; without it, or with 0, the density decides.
    """

    def factor(
        self, matrix: Tensor, rank: int, memory: dict[str, Array], name: str, seed: int
    ) -> tuple[Tensor, Tensor]:
        """``P`` and ``Q`` with ``matrix`` close to ``P Q^T``.

        Args:
            matrix: float32, shape ``(m, n)``, no magnitude above 1. Not to be written to.
            rank: the most columns that the factors may have, at least 1.
            memory: the client's arrays by name, kept from round to round; the method may read and replace them.
            name: of the layer.
            seed: of this round, client and layer; all randomness comes from it.

        Returns:
            float32 factors of shapes ``(m, r)`` and ``(n, r)``, ``0 <= r <= rank``, on the device of the matrix.
        """
        ...


def code_matrices(
    method: Factorization, layout: Layout, vector: Array, density: float, values: ValueCodec,
    memory: dict[str, Array], seed: int,
) -> list[wire.Coded]:  # fmt: skip
    """Codes the parameters of ``layout``, one entry after the other, in segments that cover them.

    A convolution of shape (out, in, height, width) is a matrix (out, in * height * width). Entries of one dimension,
    and matrices whose factors would be longer, travel dense. Dense neighbours share a segment.

    Args:
        vector: float32, shape ``(layout.parameters,)``, finite.
        density: the share of a matrix's size that its factors may have; they have at least rank 1.
        memory: of the client.
    """
    segments: list[wire.Coded] = []
    coded = 0  # coordinates that the segments cover so far

    def code_dense(until: int) -> None:
        nonlocal coded
        if until > coded:
            segments.append(wire.Coded.dense(to_numpy(vector[coded:until]), values, seed))
        coded = until

    for i, entry in enumerate(layout.trainable):
        rank = allowed_rank(entry, getattr(method, "rank", 0), density, values)
        if rank:
            code_dense(entry.start)
            segments.append(code_factors(method, entry, vector[entry.slice], rank, values, memory, seed + i))
            coded = entry.start + entry.size
    code_dense(layout.parameters)
    return segments


def allowed_rank(entry: Entry, rank: int, density: float, values: ValueCodec) -> int:
    """The largest rank for an entry; 0 (the entry travels dense) when factors would not save two segment headers."""
    if len(entry.shape) < 2 or not entry.size:
        return 0
    rows, columns = matrix_shape(entry)
    rank = min(rank or max(1, int(density * entry.size / (rows + columns))), rows, columns)
    dense = min(values.size(np.array([entry.size])), 4 * entry.size)
    while rank and values.size(factor_counts(entry, rank)) + 2 * wire.SEGMENT.size > dense:
        rank //= 2
    return rank


def code_factors(
    method: Factorization, entry: Entry, part: Array, rank: int, values: ValueCodec, memory: dict[str, Array], seed: int
) -> wire.Coded:
    """The segment of one layer, whose flat update is ``part``.

    Raises:
        ValueError: the method returned factors of a wrong shape or dtype.
    """
    matrix = torch.as_tensor(part).view(matrix_shape(entry))
    largest = float(matrix.abs().max())
    scale = largest if largest > 0 else 1.0  # after division by it no square leaves the range of float32
    seed %= 1 << 63
    p, q = method.factor(matrix / scale, rank, memory, entry.name, seed)
    shapes = [tuple(factor.shape) for factor in (p, q)]
    if shapes != [(n, min(p.shape[-1], rank)) for n in matrix.shape] or {p.dtype, q.dtype} != {torch.float32}:
        raise ValueError(
            f"{type(method).__name__}: factors of a {tuple(matrix.shape)} matrix and rank at most {rank} should be "
            f"float32, one column for each rank, not of shapes {shapes[0]} and {shapes[1]}, {p.dtype} and {q.dtype}"
        )
    half = math.sqrt(scale)  # for each factor, because float16 has no very small and no very large numbers
    columns = np.concatenate([to_numpy((factor * half).T.reshape(-1)) for factor in (p, q)])
    counts = factor_counts(entry, p.shape[1])
    return wire.Coded(entry.size, None, values, values.encode(columns, counts, seed), counts, rank=p.shape[1])


def code_products(layout: Layout, products: Mapping[str, tuple[Tensor, Tensor]], round: int) -> bytes:
    """A payload of layers that are known as products: as their factors, or dense where that is shorter.

    Args:
        products: by entry, float64 ``P`` (m, r) and ``Q`` (n, r); all other entries are 0, and take no values.
    """
    segments: list[wire.Coded] = []
    for entry in layout.trainable:
        if entry.name not in products:
            nothing = np.empty(0, np.int64)
            segments.append(wire.Coded(entry.size, nothing, F32(), b"", np.array([0])))
            continue
        p, q = products[entry.name]
        counts = factor_counts(entry, p.shape[1])
        if counts.sum() < entry.size:
            body = F32().encode(to_numpy(torch.cat([p.T.flatten(), q.T.flatten()]).float()), counts, 0)
            segments.append(wire.Coded(entry.size, None, F32(), body, counts, rank=p.shape[1]))
        else:
            segments.append(wire.Coded.dense(to_numpy((p @ q.T).flatten().float()), F32()))
    return wire.encode(layout, round, segments)
