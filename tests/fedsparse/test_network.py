"""Simulated links, and the clock over them."""

import numpy as np
import pytest

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.network import Network, Quantity, SimulatedClock


def test_a_round_is_download_computation_upload_and_the_latency_both_ways() -> None:
    network = Network("8", "80", "50", seed=0)
    seconds = network.seconds(3, downlink=10_000_000, uplink=1_000_000, compute=2.0)
    assert seconds == pytest.approx(1.0 + 1.0 + 2.0 + 0.1)


def test_a_client_keeps_its_link_and_clients_differ() -> None:
    network = Network("lognormal:10:0.5", "", "", seed=1)

    def seconds(client: int) -> float:
        return network.seconds(client, downlink=0, uplink=10**6, compute=0.0)

    assert seconds(1) == seconds(1) != seconds(2)


def test_distributions_have_the_median_and_range_they_name() -> None:
    rng = np.random.default_rng(0)
    lognormal = [Quantity.parse("lognormal:10:0.5").draw(rng) for _ in range(4000)]
    assert np.median(lognormal) == pytest.approx(10, rel=0.05)
    assert np.std(np.log(lognormal)) == pytest.approx(0.5, rel=0.05)
    uniform = [Quantity.parse("uniform:5:20").draw(rng) for _ in range(1000)]
    assert 5 <= min(uniform) < 5.2 < 19.8 < max(uniform) <= 20


def test_a_spread_beyond_all_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="SIGMA at most 10"):
        Quantity.parse("lognormal:10:1000")


@pytest.mark.parametrize(
    "text", ["fast", "0", "-1", "nan", "inf", "uniform:1", "uniform:1:2:3", "normal:1:2", "a:b", ":"]
)
def test_a_text_that_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a number above 0, uniform:LOW:HIGH or lognormal"):
        Quantity.parse(text)


@pytest.mark.parametrize("text", [0, "0", "uniform:0:50", "50"])
def test_a_latency_may_be_0_and_a_speed_may_not(text: object) -> None:
    network = Config.from_mapping({"latency-ms": text}).network()
    seconds = network.seconds(3, downlink=10, uplink=10, compute=2.0)
    assert seconds == 2.0 if text in (0, "0") else 2.0 < seconds <= 2.1
    if text != "50":
        for way in ("uplink-mbps", "downlink-mbps"):
            with pytest.raises(ConfigError, match="should be a number above 0"):
                Config.from_mapping({way: text})
    with pytest.raises(ConfigError, match="latency-ms = -1: should be a number of at least 0"):
        Config.from_mapping({"latency-ms": -1})


@pytest.mark.parametrize("value", [10, 2.5, "10"])
def test_a_number_without_quotes_is_a_speed_too(value: object) -> None:
    assert Config.from_mapping({"uplink-mbps": value}).network().uplink_mbps == str(value)


def test_a_deadline_needs_compute_seconds_so_that_it_does_not_depend_on_the_machine() -> None:
    with pytest.raises(ConfigError, match="round-deadline = 2 needs compute-seconds"):
        Config.from_mapping({"round-deadline": 2, "uplink-mbps": 1})


def test_no_links_cost_nothing() -> None:
    assert not Network("", "", "", seed=0)


NO_LINKS = Network("", "", "", seed=0)
EIGHT_MBIT = Network("8", "", "", seed=0)


def test_a_cohort_takes_as_long_as_its_slowest_client() -> None:
    clock = SimulatedClock(EIGHT_MBIT, compute_seconds=1.0, deadline=0.0)
    assert clock.seconds is None
    for uplink in (10**6, 3 * 10**6, 2 * 10**6):
        assert clock.add(0, downlink=0, uplink=uplink, measured=100.0) == ""
    assert clock.seconds == pytest.approx(4.0)


def test_without_compute_seconds_the_measured_ones_count() -> None:
    clock = SimulatedClock(EIGHT_MBIT, compute_seconds=0.0, deadline=0.0)
    clock.add(0, downlink=0, uplink=10**6, measured=0.5)
    assert clock.seconds == pytest.approx(1.5)


def test_compute_seconds_alone_make_a_clock() -> None:
    clock = SimulatedClock(NO_LINKS, compute_seconds=2.0, deadline=0.0)
    clock.add(0, downlink=10, uplink=10, measured=0.5)
    assert clock.seconds == 2.0


def test_there_is_no_clock_without_links_and_compute_seconds() -> None:
    clock = SimulatedClock(NO_LINKS, compute_seconds=0.0, deadline=0.0)
    assert clock.add(0, downlink=10, uplink=10, measured=0.5) == ""
    assert clock.seconds is None


def test_a_client_after_the_deadline_fails_and_the_round_ends_at_the_deadline() -> None:
    clock = SimulatedClock(EIGHT_MBIT, compute_seconds=1.0, deadline=2.5)
    assert clock.add(0, downlink=0, uplink=1_500_000, measured=0.0) == ""
    late = clock.add(1, downlink=0, uplink=2_000_000, measured=0.0)
    assert late == "late on the simulated network: 3.0 s, round-deadline = 2.5 s"
    assert clock.seconds == 2.5
    assert clock.add(2, downlink=0, uplink=0, measured=0.0) == ""
    assert clock.seconds == 2.5
