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
    of_run = UplinkBudget.of(now.uplink_budget) if now.uplink_budget else None
    planned = new["dp-epsilon"] != "off" or (of_run and not of_run.is_each)  # for just so many rounds
    if new["rounds"] > old["rounds"] and not planned:
        differ.remove("rounds")
    if differ:
        was, asked = (", ".join(f"{key} = {flat[key]}" for key in differ) for flat in (old, new))
        raise ConfigError(f"resume = {folder}: this run has {was}, and you ask for {asked}; only rounds may grow")
