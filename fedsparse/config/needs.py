"""Conditions under which a setting has an effect; ``effects.py`` says which setting has which."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fedsparse.catalogue import DATASETS, TEXTS, USUAL_MODEL
from fedsparse.config import Config
from fedsparse.config.presets import FACTORIZATIONS
from fedsparse.plugins import is_own


class Need(NamedTuple):
    """A condition under which a setting has an effect."""

    words: str
    """The condition in a message, such as "distribution = dirichlet"."""
    settings: tuple[str, ...]
    """The settings that decide whether the condition is met; the message gives their values."""
    is_met: Callable[[Config], bool]


def given(config: Config, key: str) -> str:
    """A setting's value, as a config file writes it."""
    value = getattr(config, key.replace("-", "_"))
    return str(value).lower() if isinstance(value, bool) else str(value)


def meant(config: Config, key: str) -> str:
    """A setting's value, with ``auto`` and presets replaced by the value that they stand for."""
    match key:
        case "compressor" | "values" | "scope":
            return str(config.compression()[key])
        case "error-feedback":
            return str(config.compression()["error_feedback"]).lower()
        case "downlink-compressor":
            return str(config.downlink_compression()["compressor"])
        case "topology":
            return config.topology_method
        case "model":
            first = config.models[0]
            return USUAL_MODEL.get(kind_of(config.dataset), first) if first == "auto" else first
    return given(config, key)


def in_words(config: Config, key: str) -> str:
    """The setting and its value, with what ``auto`` means."""
    value, meaning = given(config, key), meant(config, key)
    return f"{key} is {value}" + f" ({meaning})" * (meaning != value)


def kind_of(dataset: str) -> str:
    """The kind of the data set of this name; empty when only the loaded data set can say it."""
    if dataset in TEXTS or dataset.endswith((".txt", ".jsonl")):
        return "text"
    return "images" if dataset in DATASETS or dataset.endswith(".npz") else ""


def one_of(key: str, *names: str, own: bool = True) -> Need:
    """The setting ``key`` means one of the names or, unless ``own`` is False, an object of the user's own."""

    def is_met(config: Config) -> bool:
        others = config.models[1:] if key == "model" else ()
        return any(value in names or (own and is_own(value)) for value in (meant(config, key), *others))

    return Need(f"{key} = {either(names)}", (key,), is_met)


def none_of(key: str, *names: str) -> Need:
    """The setting ``key`` means none of the names."""
    return Need(f"another {key} than {either(names)}", (key,), lambda config: meant(config, key) not in names)


def either_way(*names: str) -> Need:
    """The uplink or the downlink uses one of the compressors, or one of the user's own."""
    up, down = one_of("compressor", *names), one_of("downlink-compressor", *names)
    return Need(
        f"compressor or downlink-compressor = {either(names)}",
        ("compressor", "downlink-compressor", "upload-pruning"),
        lambda config: (up.is_met(config) and NOT_PRUNED.is_met(config)) or down.is_met(config),
    )


def uses_density(key: str) -> tuple[Need, ...]:
    """The compressor that the setting ``key`` names depends on its density."""
    return (
        none_of(key, "none", "threshold"),
        Need("rank = 0", ("rank",), lambda config: not config.rank or meant(config, key) not in FACTORIZATIONS),
    )


def either(names: Sequence[str]) -> str:
    """The names as an English list."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


NOT_PRUNED = one_of("upload-pruning", "off")  # a client that prunes uploads every weight that is left
