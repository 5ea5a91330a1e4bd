"""Every random draw has its own seed."""

from itertools import product
from typing import get_args

from fedsparse.seeds import Purpose, derive_seed


def test_no_two_draws_share_a_seed() -> None:
    cases = list(product(range(3), get_args(Purpose), range(4), range(4)))
    seeds = {derive_seed(s, p, round=r, partition_id=c) for s, p, r, c in cases}
    assert len(seeds) == len(cases)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_on_every_machine_and_version() -> None:
    assert derive_seed(0, "train", round=1, partition_id=2) == 6463705122041852897
    assert derive_seed(2**63 - 1, "train", round=1, partition_id=2) == 8101240309134182721
    assert derive_seed(2**32, "model") == 1530797556263114877
