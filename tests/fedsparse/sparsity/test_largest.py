"""The largest scores, against sorting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.sparsity.largest import largest_mask, largest_of_each_row
from tests.fedsparse.sparsity.architectures import QUICK

ROWS = st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=1, max_size=30)


@QUICK
@given(ROWS, st.integers(0, 30))
def test_the_mask_is_of_the_k_largest_candidates_and_ties_go_to_the_lower_index(rows, k):
    k = min(k, sum(candidate for _, candidate in rows))
    order = sorted((i for i, (_, candidate) in enumerate(rows) if candidate), key=lambda i: (-rows[i][0], i))
    scores, candidates = (torch.tensor(column) for column in zip(*rows, strict=True))
    mask = largest_mask(scores.float(), candidates, k)
    assert mask.nonzero().flatten().tolist() == sorted(order[:k])


def test_nan_scores_come_last():
    scores, every = torch.tensor([torch.nan, 1.0, -1.0]), torch.ones(3, dtype=torch.bool)
    assert largest_mask(scores, every, 2).tolist() == [False, True, True]


def test_the_mask_has_the_shape_of_the_scores():
    scores = torch.tensor([[1.0, 9.0, 0.0], [2.0, 3.0, 0.0]])[:, :2]
    every = torch.ones(2, 3, dtype=torch.bool)[:, :2]
    assert largest_mask(scores, every, 2).tolist() == [[False, True], [False, True]]


def test_a_k_above_the_number_of_candidates_is_an_error():
    with pytest.raises(RuntimeError):
        largest_mask(torch.zeros(3), torch.tensor([True, False, False]), 2)


def test_every_row_keeps_its_n_largest_and_ties_go_to_the_lower_index():
    scores = torch.tensor([[[1.0, 1, 1, 1], [0, 3, 2, 3]]])
    assert largest_of_each_row(scores, 2).int().tolist() == [[[1, 1, 0, 0], [0, 1, 0, 1]]]
