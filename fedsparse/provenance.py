"""Where a run's numbers come from: its code, versions, machine and seed, and hashes of its data and partition.

A run writes this into ``provenance.json`` when it starts, and into its ``result.json``. ``main.py verify`` reads it to
say why a rerun gives other bits. Hashes find changes, but are no protection against a forger.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.config import OWN
from fedsparse.config.run_settings import core_count
from fedsparse.experiment import Experiment
from fedsparse.plugins import is_own
from fedsparse.vector import digest

FILE = "provenance.json"
"""In the run folder."""
ROOT = Path(__file__).parents[1]
PACKAGES = ("fedsparse", "flwr", "torch", "torchvision", "numpy", "scipy", "pcodec")
LARGE = 2**27
"""Bytes of an array above which an evenly spaced sample of it is hashed."""
BLOCKS, BLOCK_BYTES = 1024, 4096
"""The blocks of that sample, and the size of each; a block has at least one row."""

Provenance = dict[str, Any]


def provenance_of(experiment: Experiment, *, federated: bool = True) -> Provenance:
    """What the numbers of a run that starts now come from.

    Args:
        federated: whether the run splits its data over clients.
    """
    config = experiment.config
    hashed, sampled = data_hash(experiment.dataset)
    own = {key: config.flat()[key] for key in OWN} | {f"model {name}": name for name in config.models[1:]}
    other = experiment.distill_data if federated else None
    split = [experiment.partition.order, experiment.partition.offsets] if federated else []
    return {
        "code": code(),
        "own-code": {key: found for key, name in own.items() if (found := _own_code(name))},
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "machine": machine(experiment.device),
        "seed": config.seed,
        "data-hash": hashed,
        "data-sampled": sampled,
        **({"distill-data-hash": data_hash(other)[0]} if other else {}),
        "partition-hash": _digest(split) if federated else None,
        "initial-weights": digest(experiment.model.vector.cpu().numpy()).hex(),
    }


def continued(folder: Path, now: Provenance, round: int) -> Provenance:
    """The provenance of a run that goes on: that of its start, and what was different from this round on."""
    try:
        before: Provenance = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return now | {"resumed": [{"after-round": round, "before": "unknown"}]}
    changed = {name: new for name, (_, new) in differences(before, now).items()}
    return before | {"resumed": [*before.get("resumed", []), {"after-round": round, **changed}]}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two runs do not share: values before and now by name, such as ``versions.torch``."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def _leaves(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        elif key != "resumed":
            yield prefix + key, value


def code() -> dict[str, Any]:
    """The commit of the code that runs, whether tracked files differ from it, and a hash of all our Python files.

    Commit and ``dirty`` are None where the code is not in a git repository, such as an installed wheel.
    """
    folders = {"fedsparse": ROOT / "fedsparse"}
    if not (ROOT / "fedsparse" / "clients").is_dir():  # a checkout: see fedsparse/__init__.py
        folders |= {f"fedsparse/{name}": ROOT / name for name in ("clients", "strategies", "partitions")}
    files = {
        f"{name}/{file.relative_to(folder).as_posix()}": file
        for name, folder in folders.items()
        for file in folder.rglob("*.py")
    }
    hasher = xxhash.xxh3_128()
    for name in sorted(files):
        hasher.update(name.encode() + b"\0" + files[name].read_bytes())
    tracked = _git("ls-files", "--error-unmatch", "fedsparse/__init__.py")  # a repository around it may not know it
    state = _git("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ".") if tracked else None
    lines = (state or "").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    dirty = any(not line.startswith("#") for line in lines) if commit else None
    return {"commit": commit, "dirty": dirty, "hash": hasher.hexdigest()}


def _git(*arguments: str) -> str | None:
    """What git says of the folder of this code; None where it fails or is missing."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}  # as within a git hook
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, env=plain)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware, without the machine's name. GPUs are listed where the run computes on one."""
    processor, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():  # Linux
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = models[0].partition(":")[2].strip() if models else processor
    gpus = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    return {
        "system": platform.platform(),
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": core_count(),
        "memory-gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": device.type,
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in gpus],
        "cuda": torch.version.cuda,
    }


def data_hash(dataset: Any) -> tuple[str | None, list[str]]:
    """A hash of the arrays, numbers and texts that a data set holds, and the names of arrays of which it is a sample.

    The hash is None where the data set holds no array, because it reads its samples from elsewhere.
    """
    hasher, sampled, found = xxhash.xxh3_128(), list[str](), False
    for name, value in _members(dataset):
        hasher.update(name.encode())
        if isinstance(value, np.ndarray):
            found = True
            sampled += [name] * _add(hasher, value)
        else:
            hasher.update(repr(value).encode())
    return hasher.hexdigest() if found else None, sampled


def _members(thing: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays, numbers and texts of an object and of the dataclasses in it, by name."""
    for key, value in sorted(getattr(thing, "__dict__", {}).items()):
        if isinstance(value, Tensor):
            flat = value.detach().cpu()
            yield prefix + key, (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy()
        elif (isinstance(value, np.ndarray) and not value.dtype.hasobject) or isinstance(value, str | int | float):
            yield prefix + key, value
        elif is_dataclass(value):
            yield from _members(value, f"{prefix}{key}.")


def _add(hasher: "xxhash.xxh3_128", array: NDArray[Any]) -> bool:
    """Hash an array, or a sample of a large one; returns whether it was a sample."""
    hasher.update(f"{array.dtype} {array.shape}".encode())
    large = array.ndim > 0 and array.nbytes > LARGE
    parts = [array]
    if large:
        rows = max(1, BLOCK_BYTES * len(array) // array.nbytes)
        parts = [array[start : start + rows] for start in np.linspace(0, len(array) - rows, BLOCKS).astype(int)]
    for part in parts:
        hasher.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return large


def _digest(arrays: list[NDArray[Any]]) -> str:
    hasher = xxhash.xxh3_128()
    for array in arrays:
        _add(hasher, array)
    return hasher.hexdigest()


def _own_code(value: Any) -> str | None:
    """A hash of the file in which an object of the user's own stands; None for a setting that names no such object."""
    if not isinstance(value, str) or not is_own(value):
        return None
    place = value.rpartition(":")[0]
    file: str | None = place
    if not os.path.exists(place):
        with suppress(ImportError, ValueError):  # no such module here, or the main script
            file = getattr(find_spec(place), "origin", None)
    return xxhash.xxh3_128_hexdigest(Path(file).read_bytes()) if file and Path(file).is_file() else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
