from itertools import combinations

import pytest

from fedsparse.privacy.shamir import PRIME, combine, factors_at_zero, split

PLACES = [1, 2, 5, 8, 100]


@pytest.mark.parametrize("secret", [0, 1, 2**255 + 12345, 2**256 - 1])
@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
def test_any_shares_up_to_the_threshold_give_the_secret(secret: int, threshold: int) -> None:
    shares = dict(zip(PLACES, split(secret, threshold, PLACES), strict=True))
    for places in combinations(PLACES, threshold):
        assert combine(factors_at_zero(places), [shares[x] for x in places]) == secret


def test_one_share_less_fits_every_secret() -> None:
    """Brute force: with two of three shares, each candidate secret is on one polynomial through the two points."""
    two = dict(list(zip(PLACES, split(777, 3, PLACES), strict=True))[:2])
    for candidate in (0, 777, 2**200):
        points = {0: candidate, **two}
        third = sum(
            y * _product((7 - b) * pow(a - b, -1, PRIME) for b in points if b != a) for a, y in points.items()
        )  # the value at 7 of the polynomial through the points
        places = [*two, 7]
        assert combine(factors_at_zero(places), [*two.values(), third % PRIME]) == candidate


def _product(factors: object) -> int:
    result = 1
    for factor in factors:  # type: ignore[attr-defined]
        result = result * factor % PRIME
    return result


def test_a_share_is_uniform_and_new_each_time() -> None:
    shares = [split(1, 2, [1])[0] for _ in range(2000)]
    assert len(set(shares)) == 2000
    high = sum(share > PRIME // 2 for share in shares)
    assert 900 < high < 1100  # 4.5 standard deviations
