"""SparseGPT on matrices, against Optimal Brain Surgeon by its definition (Hassibi and Stork 1993)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsparse.sparsity import sparsegpt as module
from fedsparse.sparsity.sparsegpt import inverse_factor, magnitude, sparsegpt
from tests.fedsparse.sparsity.architectures import QUICK, generator, output_error


def problem(rows: int, columns: int, samples: int, seed: int = 0, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Weights, and the Hessian of correlated inputs."""
    g = generator(seed)
    mix = torch.eye(columns, dtype=torch.float64) + torch.rand(columns, columns, generator=g, dtype=torch.float64) / 5
    X = mix @ torch.randn(groups, columns, samples, generator=g, dtype=torch.float64)
    return torch.randn(groups, rows, columns, generator=g, dtype=torch.float64), X @ X.mT / samples


def by_the_book(weight: Tensor, hessian: Tensor, quotas: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    """One row at a time, column after column, each with the inverse of the remaining Hessian."""
    W, columns = weight.clone(), weight.shape[1]
    H = hessian + module.DAMPING * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    inverses = [torch.linalg.inv(H[i:, i:]) for i in range(columns)]
    mask = torch.ones_like(W, dtype=torch.bool)
    for start, end, kept in quotas:
        scores = torch.stack([W[:, i] ** 2 / inverses[i][0, 0] for i in range(start, end)], 1)
        mask[:, start:end] = False
        for flat in scores.flatten().argsort(descending=True)[:kept].tolist():
            mask[flat // (end - start), start + flat % (end - start)] = True
        for i in range(start, end):
            for row in range(W.shape[0]):
                if not mask[row, i]:
                    W[row, i:] -= W[row, i] / inverses[i][0, 0] * inverses[i][0]
    return W.masked_fill(~mask, 0), mask


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_exact_obs_on_tiny_matrices(seed):
    weight, hessian = problem(4, 6, 50, seed)
    W, M = sparsegpt(weight, hessian, 12)
    expected, mask = by_the_book(weight[0], hessian[0], [(0, 6, 12)])
    assert torch.equal(M[0], mask)
    torch.testing.assert_close(W[0], expected, rtol=1e-9, atol=1e-9)


def test_lazy_updates_between_blocks_equal_exact_obs(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 3)
    weight, hessian = problem(4, 8, 50)
    W, M = sparsegpt(weight, hessian, 16)
    expected, mask = by_the_book(weight[0], hessian[0], [(0, 3, 6), (3, 6, 6), (6, 8, 4)])
    assert torch.equal(M[0], mask)
    torch.testing.assert_close(W[0], expected, rtol=1e-9, atol=1e-9)


def test_removing_the_first_column_leaves_the_least_squares_optimum_of_the_others():
    weight, hessian = problem(3, 5, 50)
    weight[:, :, 0] = 1e-6 * weight[:, :, 1]  # so small that it is pruned
    W, M = sparsegpt(weight, hessian, 12)
    assert not bool(M[:, :, 0].any())
    assert bool(M[:, :, 1:].all())
    H = hessian[0] + module.DAMPING * hessian[0].diagonal().mean() * torch.eye(5, dtype=torch.float64)
    optimum = torch.linalg.solve(H[1:, 1:], H[1:, :] @ weight[0].T).T
    torch.testing.assert_close(W[0][:, 1:], optimum, rtol=1e-9, atol=1e-9)


def test_the_factor_is_the_upper_cholesky_factor_of_the_damped_inverse():
    _, hessian = problem(1, 7, 50, groups=3)
    damping = torch.tensor([0.1, 0.0, 2.0], dtype=torch.float64)
    U = inverse_factor(hessian, damping)
    eye = torch.eye(7, dtype=torch.float64)
    inverse = torch.linalg.inv(hessian + damping[:, None, None] * eye)
    torch.testing.assert_close(U, torch.linalg.cholesky(inverse, upper=True))


def test_damping_grows_tenfold_until_a_group_that_needs_it_is_positive_definite():
    hessian = torch.stack([torch.eye(2), torch.tensor([[1.0, 1.5], [1.5, 1.0]])]).double()
    U = inverse_factor(hessian, torch.tensor([0.01, 0.01], dtype=torch.float64))
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close((U.mT @ U)[0], torch.linalg.inv(hessian[0] + 0.01 * eye))
    torch.testing.assert_close((U.mT @ U)[1], torch.linalg.inv(hessian[1] + 1.0 * eye))


@pytest.mark.parametrize("nm", [None, (2, 4)])
def test_dead_inputs_give_finite_results_and_lose_their_weights(nm):
    weight, hessian = problem(6, 8, 50, groups=2)
    hessian[0, 3], hessian[0, :, 3], hessian[1] = 0, 0, 0  # one input of a group, and all of another
    W, M = sparsegpt(weight, hessian, 48, nm)
    assert bool(W.isfinite().all())
    assert not bool(W[0, :, 3].any())
    assert not bool(W[1].any())
    assert int(M.sum()) == 48


@pytest.mark.parametrize("samples", [1, 3])
def test_fewer_samples_than_inputs_give_finite_results_and_less_error_than_magnitude(samples):
    weight, hessian = problem(6, 12, samples)
    W, M = sparsegpt(weight, hessian, 36)
    assert bool(W.isfinite().all())
    assert int(M.sum()) == 36
    assert output_error(weight, W, hessian) < output_error(weight, magnitude(weight, 36)[0], hessian)


def test_inputs_that_are_not_finite_are_refused():
    weight, hessian = problem(2, 3, 10)
    hessian[0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        sparsegpt(weight, hessian, 3)


@QUICK
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 300), st.floats(0, 1))
def test_the_count_is_exact_at_every_sparsity_and_shape(groups, rows, columns, sparsity):
    g = generator()
    weight = torch.randn(groups, rows, columns, generator=g)
    X = torch.randn(groups, columns, 5, generator=g, dtype=torch.float64)
    kept = round((1 - sparsity) * weight.numel())
    W, M = sparsegpt(weight, X @ X.mT / 5, kept)
    assert int(M.sum()) == kept == int(magnitude(weight, kept)[1].sum())
    assert bool(W.isfinite().all())
    assert not bool(W[~M].any())


def test_sparsity_zero_changes_nothing_and_one_leaves_nothing():
    weight, hessian = problem(4, 200, 50)
    assert torch.equal(sparsegpt(weight, hessian, 800)[0], weight)
    assert not bool(sparsegpt(weight, hessian, 0)[0].any())


def test_every_block_of_columns_meets_its_quota():
    weight, hessian = problem(4, 300, 400)
    _, M = sparsegpt(weight, hessian, 300)
    kept = [int(block.sum()) for block in M.split(module.BLOCK, dim=2)]
    assert kept == [128, 128, 44]


@pytest.mark.parametrize("nm", [(2, 4), (1, 4), (4, 8), (0, 2), (3, 3), (100, 200)])
def test_every_group_of_m_keeps_exactly_n(nm):
    weight, hessian = problem(5, 600 // nm[1] * nm[1], 50)
    for W, M in (sparsegpt(weight, hessian, 0, nm), magnitude(weight, 0, nm)):
        assert bool((M.unflatten(2, (-1, nm[1])).sum(-1) == nm[0]).all())
        assert not bool(W[~M].any())


@pytest.mark.parametrize("nm", [None, (2, 4)])
def test_survivors_are_adapted_so_that_the_error_is_below_magnitudes(nm):
    weight, hessian = problem(16, 64, 500)
    ours, base = sparsegpt(weight, hessian, 512, nm)[0], magnitude(weight, 512, nm)[0]
    assert output_error(weight, ours, hessian) < 0.7 * output_error(weight, base, hessian)


def test_dtype_and_inputs_are_left_as_they_are():
    weight, hessian = problem(4, 8, 50)
    copies = weight.float().clone(), hessian.clone()
    W, _ = sparsegpt(copies[0], copies[1], 16)
    assert W.dtype == torch.float32
    assert torch.equal(copies[0], weight.float())
    assert torch.equal(copies[1], hessian)
