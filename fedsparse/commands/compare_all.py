"""Every compressor on one job, at equal density and at equal bytes: a sweep without a sweep file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsparse.catalogue import COMPRESSORS
from fedsparse.commands.checks import look
from fedsparse.commands.sweep import check_flags, run_plan
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.config.effects import has_effect
from fedsparse.config.presets import PRESETS
from fedsparse.config.settings import Given
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.plugins import is_own
from fedsparse.report.grid import sweep_of
from fedsparse.telemetry.progress import human_bytes

VARIED = {"compressor", "density", "uplink-budget", "seed"}

Row = dict[str, Any]


def compare_all(settings: Given, jobs: str = "auto", seeds: str = "1") -> None:
    """`main.py compare-all`: run all compressors that the settings allow, then write tables, pictures and the page.

    Raises:
        ConfigError: a mistake in what was typed.
    """
    check_flags(settings, jobs)
    if not (seeds.isdecimal() and int(seeds)):
        raise ConfigError(f"seeds = {seeds}: should be a whole number above 0")
    compressors = asked(str(settings.get("compressor", "")))
    job = Config.from_mapping({key: settings[key] for key in settings.keys() - {"compressor", "uplink-budget"}})
    look(job.absolute_paths())
    budget = str(settings.get("uplink-budget") or usual_uplink(job))
    at_density = {"density", "uplink-budget"} & settings.keys() != {"uplink-budget"}
    rows = list(tried(compressors, job, budget, at_density))
    if not rows:
        raise ConfigError("the settings leave no compressor that could be tried")
    base = Given({key: settings[key] for key in settings.keys() - VARIED})
    base.typed = settings.typed - VARIED
    grid = {"seed": [job.seed + n for n in range(int(seeds))]}
    plan = sweep_of("compare-all", {"grid": grid, "runs": rows, "plot": {"lines": "compressor"}}, base)
    folder = Path(plan.cells[0].config.logdir) / plan.name
    density = f"at density {job.density:g}, and " if at_density else ""
    print(f"{density}at an uplink budget of {budget}: {len(plan.cells)} runs in {folder}")
    run_plan(plan, base, jobs)


def asked(compressor: str) -> list[str]:
    """The compressors that ``--compressor`` asks for: those between its commas, or all and the user's own one.

    Raises:
        ConfigError: an unknown name, or a single one that is no addition.
    """
    names = [name.strip() for name in compressor.split(",") if name.strip()]
    for name in names:
        if not is_own(name):
            Config.from_mapping({"compressor": name})
    if len(names) > 1:
        return list(dict.fromkeys(names))
    if names and not is_own(compressor):
        raise ConfigError(
            f"compressor = {compressor}: nothing to compare it with; name several, with commas, or leave it out for all"
        )
    return [*COMPRESSORS, *PRESETS, *names]


def usual_uplink(job: Config) -> str:
    """The uplink of the job with the default compressor, as far as an update of random numbers tells it."""
    codec = UpdateCodec(layout := Experiment(job).layout, **job.compression())
    update = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    payload, _ = codec.encode(update, ClientState(), round=1, seed=0)
    return human_bytes(len(payload) * job.rounds * job.clients_per_round).replace(" ", "")


def tried(compressors: Sequence[str], job: Config, budget: str, at_density: bool) -> Iterator[Row]:
    """The settings of each compressor that differ from the job's; tells which compressors cannot have them.

    Args:
        at_density: whether each is tried at the job's density too.
    """
    as_they_are = []
    for name in compressors:
        rows: list[Row] = [{"compressor": name, "density": job.density}, {"compressor": name, "uplink-budget": budget}]
        rows = rows[0 if at_density else 1 :]
        try:
            if not has_effect("density", job.replace(compressor=name)):
                as_they_are.append(name)
                rows = [{"compressor": name}]
        except ConfigError:  # told below
            rows = rows[:1]
        for row in rows:
            try:
                look(job.replace(**row).absolute_paths())
                yield row
            except ConfigError as error:
                print(f"without {', '.join(map(str, row.values()))}: {error}")
    if as_they_are:
        print(f"as they are, because no density changes their bytes: {', '.join(as_they_are)}")
