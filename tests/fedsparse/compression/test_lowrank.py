"""Low rank against the singular value decomposition."""

import numpy as np
import pytest
import torch

from benchmarks.lowrank import SHAPES, spectrum
from fedsparse.compression import ClientState, PayloadError, UpdateCodec, decode
from fedsparse.compression.factors import product
from fedsparse.compression.lowrank import LowRank
from fedsparse.compression.matrices import code_products
from fedsparse.compression.powersgd import PowerSGD
from fedsparse.compression.values import F16, value_codec
from fedsparse.compression.wire import HEADER, SEGMENT, Coded, encode

from .common import KINDS, draw_vector, layout_of_shapes
from .test_wire import changed

LAYOUT = layout_of_shapes((40, 30), (7,), (16, 3, 3, 3), (3, 3), (60, 50), buffers=5)
FIRST = HEADER.size


def error(matrix: torch.Tensor, method, rank: int, memory: dict | None = None) -> float:
    p, q = method.factor(matrix, rank, {} if memory is None else memory, "layer", 7)
    assert p.shape[1] == q.shape[1] <= rank
    return float((matrix - p @ q.T).norm())


@pytest.mark.parametrize("shape", [*SHAPES, (256, 5000), (50, 20)])
@pytest.mark.parametrize("options", [{}, {"sparse": True}, {"power_iterations": 2}, {"residual_iterations": 1}])
def test_the_error_is_within_five_percent_of_the_best(shape, options) -> None:
    matrix, values = spectrum(*shape)
    rank = min(shape) // 10
    best = float(values[rank:].square().sum().sqrt())
    assert best <= error(matrix, LowRank(energy=1.0, **options), rank) <= 1.05 * best


@pytest.mark.parametrize("shape", SHAPES)
def test_powersgd_reaches_the_best_error_from_its_last_result(shape) -> None:
    matrix, values = spectrum(*shape)
    rank, memory = min(shape) // 10, {}
    errors = [error(matrix, PowerSGD(), rank, memory) for _ in range(5)]
    best = float(values[rank:].square().sum().sqrt())
    assert errors[-1] <= 1.05 * best < errors[0]


def papers_powersgd(matrices: list[torch.Tensor], q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Algorithm 1 over all the workers' matrices: both products are averaged between the workers."""
    p = torch.linalg.qr(sum(matrix @ q for matrix in matrices) / len(matrices)).Q
    q = sum(matrix.T @ p for matrix in matrices) / len(matrices)
    return p @ q.T, q


def test_powersgd_of_one_client_is_the_papers_and_of_several_the_mean_of_their_own_factors() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(30, 20, generator=generator) for _ in range(3)]
    memory, q = {}, torch.randn(20, 2, generator=torch.Generator().manual_seed(7))
    for matrix in matrices:  # three rounds of one client: each starts from the last round's Q
        p, own = PowerSGD().factor(matrix, 2, memory, "layer", 7)
        product, q = papers_powersgd([matrix], q)
        torch.testing.assert_close(p @ own.T, product, rtol=1e-4, atol=1e-4)
    factors = [PowerSGD().factor(matrix, 2, {}, "layer", 7) for matrix in matrices]
    mean = sum(p @ own.T for p, own in factors) / 3
    shared, _ = papers_powersgd(matrices, torch.randn(20, 2, generator=torch.Generator().manual_seed(7)))
    assert torch.linalg.matrix_rank(mean) == 6
    assert torch.linalg.matrix_rank(shared, atol=1e-4) == 2


@pytest.mark.parametrize(("rank", "most"), [(10, 1.01), (20, 1.01), (40, 10)])
def test_the_error_is_near_the_best_when_singular_values_fall_to_a_millionth(rank: int, most: float) -> None:
    generator, values = torch.Generator().manual_seed(0), 0.7 ** torch.arange(200, dtype=torch.float64)
    u, v = (torch.linalg.qr(torch.randn(n, 200, generator=generator, dtype=torch.float64)).Q for n in (300, 200))
    matrix = (u * values @ v.T).float()
    best = float(torch.linalg.svdvals(matrix.double())[rank:].square().sum().sqrt())
    assert error(matrix, LowRank(energy=1.0), rank) <= most * best


@pytest.mark.parametrize("residual_iterations", [0, 2])
@pytest.mark.parametrize("energy", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("shape", SHAPES)
def test_adaptive_rank_keeps_the_asked_energy_within_a_percent(shape, energy: float, residual_iterations: int) -> None:
    matrix, values = spectrum(*shape)
    method = LowRank(energy=energy, residual_iterations=residual_iterations)
    p, q = method.factor(matrix, min(shape) // 2, {}, "layer", 0)
    kept = 1 - float((matrix - p @ q.T).square().sum() / matrix.square().sum())
    needed = int((values.square().cumsum(0) / values.square().sum() < energy).sum()) + 1
    assert kept >= energy - 0.01
    assert needed <= p.shape[1] <= needed + max(1, 0.05 * needed)  # and no more rank than that takes


@pytest.mark.parametrize("method", [LowRank(energy=1.0), PowerSGD()])
def test_a_matrix_of_less_rank_than_allowed_arrives_whole_and_so_does_a_richer_one_later(method) -> None:
    generator, memory = torch.Generator().manual_seed(0), {}
    for rank in (2, 8):
        left, right = (torch.randn(n, rank, generator=generator) for n in (60, 40))
        matrix = left @ right.T / 50
        for _ in range(3):
            p, q = method.factor(matrix, 8, memory, "layer", 1)
            basis = p if isinstance(method, PowerSGD) else q
            torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5, rtol=0)
        assert float((matrix - p @ q.T).norm()) <= 1e-5 * float(matrix.norm())


def test_balanced_rows_keep_small_rows_as_well_as_large_ones() -> None:
    matrix, _ = spectrum(60, 40)
    scales = torch.logspace(-4, 0, 60)[:, None]
    relative = []
    for balance in (False, True):
        p, q = LowRank(energy=1.0, balance=balance).factor(matrix * scales, 8, {}, "layer", 0)
        relative.append(float(((matrix * scales - p @ q.T) / scales).norm() / matrix.norm()))
    assert relative[1] < 0.85 * relative[0]


@pytest.mark.parametrize("compressor", ["lowrank", "powersgd"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_update_arrives_finite_and_the_rest_stays(compressor: str, kind: str) -> None:
    codec, state = UpdateCodec(LAYOUT, compressor, 0.2), ClientState()
    n, old = LAYOUT.parameters, 0.0
    for round in (1, 2, 3):
        update = draw_vector(kind, LAYOUT.size, round)
        payload, stats = codec.encode(update, state, round=round, seed=round)
        codec.settle(state, round)
        sent = codec.decode(payload).to_dense()
        total = old + update[:n]
        np.testing.assert_allclose(sent[:n] + state.residual, total, rtol=1e-5, atol=2e-6 * np.abs(total).max())
        assert np.array_equal(sent[n:], update[n:])
        assert stats["density"] < 0.5
        old = state.residual.copy()


def test_a_lost_payload_of_factors_returns_to_the_residual() -> None:
    codec, state = UpdateCodec(LAYOUT, "lowrank", 0.2), ClientState()
    update = draw_vector("normal", LAYOUT.size, 0)
    codec.encode(update, state, round=1, seed=1)
    codec.settle(state, None)
    np.testing.assert_allclose(state.residual, update[: LAYOUT.parameters], atol=1e-5)


def test_small_layers_and_vectors_travel_dense_in_one_segment() -> None:
    codec = UpdateCodec(LAYOUT, "powersgd", rank=2)
    payload, _ = codec.encode(draw_vector("normal", LAYOUT.size, 0), ClientState(), round=1, seed=0)
    assert [s.size for s in codec.decode(payload).segments] == [1200, 7, 432, 9, 3000, 5]
    tiny = layout_of_shapes((3, 3), (5,), (2, 4), (9,))
    codec = UpdateCodec(tiny, "lowrank", 1.0)
    update = draw_vector("normal", tiny.size, 0)
    payload, stats = codec.encode(update, ClientState(), round=1, seed=0)
    assert [s.size for s in codec.decode(payload).segments] == [tiny.size]
    assert np.array_equal(codec.decode(payload).to_dense(), update)
    assert stats["density"] == 1


def test_a_deep_network_has_more_segments_than_a_byte_counts() -> None:
    layout = layout_of_shapes(*[(30, 30), (3,)] * 200)
    codec = UpdateCodec(layout, "powersgd", rank=1)
    payload, _ = codec.encode(draw_vector("normal", layout.size, 0), ClientState(), round=1, seed=0)
    assert len(codec.decode(payload).segments) == 400


def test_zeros_have_rank_zero() -> None:
    codec = UpdateCodec(layout_of_shapes((40, 30)), "lowrank")
    payload, _ = codec.encode(np.zeros(1200, np.float32), ClientState(), round=1, seed=0)
    assert len(payload) == HEADER.size + SEGMENT.size + 4
    assert not codec.decode(payload).to_dense().any()


@pytest.mark.parametrize("compressor", ["lowrank", "powersgd"])
@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1.0, 1e6])
def test_factors_in_float16_are_as_good_for_small_and_large_updates(compressor: str, scale: float) -> None:
    update, errors = spectrum(200, 100)[0].numpy().ravel(), {}
    update = update / np.abs(update).max() * np.float32(scale)
    for values in ("f32", "f16"):
        codec = UpdateCodec(layout_of_shapes((200, 100)), compressor, 0.2, values=values)
        payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
        errors[values] = np.linalg.norm((codec.decode(payload).to_dense() - update).astype(np.float64))
    assert errors["f16"] <= 1.01 * errors["f32"]


@pytest.mark.parametrize("shape", [(60, 50), (300, 5), (5, 700), (40, 30, 3, 3)])
@pytest.mark.parametrize("values", ["f32", "f16", "bf16", "int8"])
def test_a_product_has_the_same_bits_in_whatever_order_it_is_summed(shape: tuple[int, ...], values: str) -> None:
    (entry,) = layout_of_shapes(shape).trainable
    rows, columns = shape[0], entry.size // shape[0]
    for rank in (1, 5, 40):
        columns_of_both = draw_vector("heavy-tailed", rank * (rows + columns), rank)
        counts, codec = np.array([columns_of_both.size]), value_codec(values)
        decoded = codec.decode(memoryview(bytes(codec.encode(columns_of_both, counts, 0))), counts)
        p, q = decoded[: rank * rows].reshape(rank, rows), decoded[rank * rows :].reshape(rank, columns)
        once = product(decoded, entry)
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(rank)
            assert product(np.concatenate([p[order].ravel(), q[order].ravel()]), entry).tobytes() == once.tobytes()
        best = p.T.astype(np.float64) @ q.astype(np.float64)
        largest = np.abs(p).max(0)[:, None] * np.abs(q).max(0)[None, :]  # of the two rows that meet in an entry
        assert (np.abs(once.reshape(rows, columns) - best) <= rank * 2.0**-22 * largest).all()


def factored(rank: int = 2, values: np.ndarray | None = None) -> bytes:
    layout = layout_of_shapes((40, 30), (7,))
    columns = draw_vector("normal", 70 * rank, 0) if values is None else values
    counts, codec = np.array([columns.size]), F16()
    factors = Coded(1200, None, codec, codec.encode(columns, counts, 0), counts, rank=rank)
    return encode(layout, 1, [factors, Coded.dense(np.zeros(7, np.float32), codec)])


@pytest.mark.parametrize(
    ("at", "new", "message"),
    [
        (FIRST + 4, (1199).to_bytes(4, "little"), "1199 coordinates that are no matrix"),
        (FIRST + 4, (1207).to_bytes(4, "little"), "1207 coordinates that are no matrix"),
        (FIRST + 8, (141).to_bytes(4, "little"), "141 values"),
        (FIRST + 8, (70 * 40).to_bytes(4, "little"), "2800 values of 1200"),
        (FIRST + 8, (70 * 10).to_bytes(4, "little"), "values are cut off"),
        (FIRST + 12, (2).to_bytes(4, "little"), "2 bytes of indices"),
        (FIRST + 2, b"\1", "for factors of 40 x 30"),
        (FIRST + SEGMENT.size, b"\xff\xff", "not finite"),
    ],
)
def test_a_fault_in_factors_is_refused(at: int, new: bytes, message: str) -> None:
    layout = layout_of_shapes((40, 30), (7,))
    decode(factored(), layout)
    with pytest.raises(PayloadError, match=message):
        decode(changed(factored(), at, new), layout)


def test_factors_of_a_vector_or_a_buffer_are_refused() -> None:
    payload = factored()
    for layout_shape in ((1200,), (30, 40)):
        with pytest.raises(PayloadError):
            decode(payload, layout_of_shapes(layout_shape, (7,)))


@pytest.mark.parametrize("options", [{"energy": 0}, {"energy": 1.5}, {"rank": -1}, {"power_iterations": -1}])
def test_a_wrong_option_is_named(options) -> None:
    with pytest.raises(ValueError, match="must be"):
        LowRank(**options)
    with pytest.raises(ValueError, match="too coarse"):
        UpdateCodec(LAYOUT, "powersgd", values="sign")


def test_known_products_travel_as_factors_or_dense_where_that_is_shorter_and_nothing_else_takes_values() -> None:
    thin, thick, empty = ((torch.randn(40, r).double(), torch.randn(30, r).double()) for r in (3, 18, 0))
    layout = layout_of_shapes((40, 30), (7,), (50, 20), (40, 30), (40, 30))
    names = [entry.name for entry in layout.entries]
    payload = code_products(layout, {names[0]: thin, names[3]: thick, names[4]: empty}, round=2)
    expected = torch.zeros(layout.size, dtype=torch.float64)
    for at, (p, q) in ((0, thin), (3, thick)):
        expected[layout.entries[at].slice] = (p @ q.T).flatten()
    received = torch.from_numpy(decode(payload, layout).to_dense())
    torch.testing.assert_close(received, expected.float(), rtol=1e-5, atol=1e-5)
    assert len(payload) < 4 * (3 * 70 + 40 * 30) + 170
