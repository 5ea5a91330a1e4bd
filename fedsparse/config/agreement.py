"""Which settings a run keeps to its end: they name it, and those of a run that goes on are those of the run before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from fedsparse.config import Config
from fedsparse.config.effects import ONLY_PLACE_AND_SPEED
from fedsparse.config.uplink_budget import UplinkBudget
from fedsparse.errors import ConfigError

FREE = {*ONLY_PLACE_AND_SPEED, "client-timeout", "round-timeout"} - {"state-store"}
"""Settings that may differ."""


def run_name(config: Config) -> str:
    """A hash of the settings that a run keeps to its end. Clients' payloads are bound to it.

    Runs of the same settings send the same payloads, so they may share it.
    """
    kept = {key: value for key, value in config.flat().items() if key not in {*FREE, "rounds"}}
    return xxhash.xxh3_64_hexdigest(repr(sorted(kept.items())).encode())


def check_agreement(before: Mapping[str, Any], now: Config, folder: Path) -> None:
    """Check that a run can go on with the settings ``now``.

    Raises:
        ConfigError: one line that names the settings that disagree with those of the run.
    """
    old, new = Config.from_mapping(before).flat(), now.flat()
    differ = [key for key in old if key not in FREE and old[key] != new[key]]
    if left := [key for key in differ if key not in grown(old, new)]:
        was, asked = (", ".join(f"{key} = {flat[key]}" for key in left) for flat in (old, new))
        only = "only rounds may grow"
        if old["dp-epsilon"] != "off":
            only = "nothing may grow, because dp-epsilon is of all rounds"
        elif run_bytes(old):
            only = "only uplink-budget may grow, and rounds with it"
        raise ConfigError(f"resume = {folder}: this run has {was}, and you ask for {asked}; {only}")


def grown(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """The settings with which a run may go on further than it was planned to.

    A run's uplink budget, of which the rounds to come share what is left, grows alone or with the rounds; the rounds do
    not grow without it. No plan of ``dp-epsilon`` has more rounds.
    """
    may = {"rounds"} if new["rounds"] > old["rounds"] else set()
    if run_bytes(old):
        may = may | {"uplink-budget"} if run_bytes(new) > run_bytes(old) else set()
    return may if old["dp-epsilon"] == "off" else set()


def run_bytes(settings: Mapping[str, Any]) -> float:
    """The uplink budget of the whole run; 0 without one."""
    budget = UplinkBudget.of(settings["uplink-budget"]) if settings["uplink-budget"] else None
    return budget.bytes if budget and not budget.is_each else 0.0
