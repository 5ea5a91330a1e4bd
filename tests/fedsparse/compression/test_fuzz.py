"""Hostile bytes at every decoder; ``python -m benchmarks.fuzz`` counts and times them."""

import resource

import pytest

from benchmarks.fuzz import SHARES, fuzz


@pytest.mark.parametrize("kind", SHARES)
def test_hostile_bytes_are_refused_or_well_formed(kind: str) -> None:
    tally = fuzz(kind, 1500, seed=1)
    assert 500 < tally.refused < 1500


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARES)
def test_a_hundred_thousand_hostile_bytes_are_refused_or_well_formed(kind: str) -> None:
    fuzz(kind, 100, seed=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fuzz(kind, 100_000, seed=2).refused > 25_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # pcodec's own memory included
    assert grown < 64 << 10  # kilobytes
