"""Distributions of the user's own, and those that a data set names itself."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.partitions import DataError, as_given, natural_clients, partition

BALANCED = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 600))

Arguments = dict[str, object]


def test_an_own_distribution_gets_labels_clients_a_generator_and_the_settings_that_it_takes() -> None:
    got: Arguments = {}

    def nothing_more(labels: np.ndarray, clients: int, rng: np.random.Generator) -> np.ndarray:
        got.update(labels=labels, clients=clients, rng=rng)
        return labels % clients

    def beta_alone(labels: np.ndarray, clients: int, rng: np.random.Generator, beta: float = 7.0) -> np.ndarray:
        got.update(beta=beta)
        return labels % clients

    def everything(labels: np.ndarray, clients: int, rng: np.random.Generator, **settings: object) -> np.ndarray:
        got.update(settings)
        return labels % clients

    settings: dict = {"seed": 3, "beta": 0.5, "classes_per_client": 4, "natural": BALANCED}
    result = partition(torch.from_numpy(BALANCED), nothing_more, 5, name="mine", **settings)
    assert np.array_equal(got["labels"], BALANCED)  # type: ignore[arg-type]
    assert got["clients"] == 5
    assert got["rng"].random() == np.random.default_rng(3).random()  # type: ignore[attr-defined]
    assert result.name == "mine"
    assert partition(BALANCED, beta_alone, 5, name="mine", **settings).name == "mine, beta 0.5"
    assert got["beta"] == 0.5
    partition(BALANCED, everything, 5, **settings)
    assert (got["beta"], got["classes_per_client"], got["natural"] is BALANCED) == (0.5, 4, True)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50), st.sampled_from([np.uint8, np.int32, np.int64, list]))
def test_the_owners_that_a_distribution_returns_are_the_partition(owners: list[int], kind: Callable) -> None:
    result = partition([0] * len(owners), lambda labels, clients, rng: kind(owners), 5, seed=0, min_samples=0)
    assert result.owners.tolist() == owners
    assert [result[client].tolist() for client in range(5)] == [
        [sample for sample, owner in enumerate(owners) if owner == client] for client in range(5)
    ]


def test_samples_are_moved_to_meet_the_floor_of_an_own_distribution() -> None:
    result = partition([0] * 9, lambda labels, clients, rng: labels, 3, seed=0, min_samples=2)
    assert result.sizes.tolist() == [5, 2, 2]
    assert result.moved == 4


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            np.zeros(9, np.int64),
            r"mine returned an array of shape \(9,\) and dtype int64; it should be .* the 10 samples",
        ),
        (np.zeros((10, 1), np.int64), r"mine returned an array of shape \(10, 1\) and"),
        (np.zeros(10), "mine returned an array of shape .* and dtype float64"),
        (np.zeros(10, bool), "mine returned an array of shape .* and dtype bool"),
        (None, r"mine returned an array of shape \(\) and dtype object"),
        ([[1], [1, 2]], "mine returned no array: "),
        ([0, 1, 2, 0, 1, 2, 0, 3, 4, 5], "mine gave sample 7 to client 3; clients are 0 to 2"),
        ([0, -1, 2, 0, 1, 2, 0, 1, 0, 0], "mine gave sample 1 to client -1; clients are 0 to 2"),
    ],
)
def test_a_distribution_that_returns_no_owners_is_one_line(returned: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        partition([0] * 10, lambda labels, clients, rng: returned, 3, seed=0, name="mine")
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50))
def test_natural_clients_keep_their_samples_even_below_the_floor(ids: list[int]) -> None:
    held = np.unique(ids, return_inverse=True)[1]
    clients = int(held.max()) + 1
    result = partition(
        [0] * len(ids), natural_clients.owners, clients, seed=0, natural=held, min_samples=100, name="natural"
    )
    assert result.owners.tolist() == held.tolist()
    assert (result.moved, result.name) == (0, "natural")


def test_natural_clients_of_a_data_set_that_names_none_are_one_line() -> None:
    with pytest.raises(
        DataError, match=r"natural: this data set does not say who holds what; text does so as a folder"
    ) as caught:
        partition([0, 1], natural_clients.owners, 2, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("clients", [1, 2, 4, 10])
def test_a_wrong_number_of_natural_clients_is_one_line_with_the_right_number(clients: int) -> None:
    message = f"natural has 3 clients, not {clients}; run with --clients 3"
    with pytest.raises(DataError, match=message):
        partition([0] * 4, natural_clients.owners, clients, seed=0, natural=np.array([2, 0, 1, 0]), name="natural")


def test_a_natural_client_without_a_sample_is_one_line() -> None:
    mine = as_given(lambda labels, clients, rng: [0, 3, 3, 1])
    with pytest.raises(DataError, match="mine has no sample for client 2"):
        partition([0] * 4, mine, 4, seed=0, name="mine", min_samples=0)
