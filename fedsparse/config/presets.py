"""Presets: published compressors that combine a selection and a value coding, named here without code of their own."""

from typing import Any, Literal

Auto = Literal["auto"]

FACTORIZATIONS = ("lowrank", "powersgd")
"""Compressors that factor layers instead of selecting coordinates."""

UNBIASED = ("none", "randomk")
"""Selections whose values, multiplied by size / k, are the update in expectation."""

UNBIASED_VALUES = ("f32", "bf16", "int8", "int4", "ternary", "power-of-two", "eden")
"""Value codings that can round at random, so that the decoded value is the value in expectation."""

FINE_VALUES = ("f32", "f16", "bf16", "int8")
"""Value codings with a relative error so small that the product of two coded factors is still good."""

PRESETS: dict[str, dict[str, Any]] = {
    # Sattler, Wiedemann, Müller, Samek, "Robust and Communication-Efficient Federated Learning from Non-IID Data",
    # TNNLS 2020, algorithm 1: top-k, then signs and the mean magnitude, of each tensor as in their code.
    "stc": {"compressor": "hggtopk", "values": "sign", "scope": "layer"},
    # Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD", ICML 2019, algorithm 1, layer by layer.
    "signsgd": {"compressor": "none", "values": "sign", "scope": "layer"},
    # Seide et al. 2014: see onebit.py.
    "onebit": {"compressor": "none", "values": "two-means", "scope": "layer"},
    # Wen et al. 2017, Alistarh et al. 2017: see levels.py.
    "terngrad": {"compressor": "none", "values": "ternary", "unbiased": True, "scope": "layer"},
    "qsgd": {"compressor": "none", "values": "int8", "unbiased": True},
    # Horváth et al. 2022: see natural.py.
    "natural": {"compressor": "none", "values": "power-of-two", "unbiased": True},
    # Sarfi et al. 2025, algorithm 1: top-k of each chunk, 2 bits a value, decayed error feedback. The density is the
    # user's; the paper's is 64 / 4096. A chunk is 4096 consecutive coordinates of an entry, in the authors' program a
    # tile of 64 by 64. int2.py chooses the levels, in the authors' program a grid in standard deviations.
    "sparseloco": {"compressor": "topk", "values": "int2", "scope": "chunk", "feedback_decay": 0.95},
    # Vargaftik et al. 2022: see eden.py.
    "eden": {"compressor": "none", "values": "eden", "unbiased": True},
}
"""The settings of each preset. Its ``values`` are fixed; the user's settings override ``unbiased`` and ``scope``."""


def resolve(
    name: str,
    values: str = "auto",
    error_feedback: bool | Auto = "auto",
    unbiased: bool | Auto = "auto",
    scope: str = "auto",
) -> dict[str, Any]:
    """The arguments of ``UpdateCodec`` for a compressor's name and the settings beside it.

    A method that is unbiased by its paper needs no error feedback; asked for error feedback it rounds to the nearest.
    Anything else feeds back unless told otherwise. Values are float16 where coordinates are left out, else float32,
    or bfloat16 to be rounded at random. The scope is global unless the method works layer by layer.

    Args:
        name: in ``COMPRESSORS`` or ``PRESETS``.
        values: a value coding, or auto.
        error_feedback, unbiased: a bool, or auto.
        scope: global, layer or auto.

    Raises:
        ValueError: values other than the preset's, or error feedback together with unbiased.
    """
    preset = {"compressor": name} | PRESETS.get(name, {})
    if values != "auto":
        if values != preset.get("values", values):
            raise ValueError(
                f"values = {values}: compressor = {name} means {preset['values']}; leave values at auto, "
                f"or name its selection, compressor = {preset['compressor']}"
            )
        preset["values"] = values
    if unbiased == "auto":
        unbiased = bool(preset.get("unbiased", False)) and error_feedback is not True
    if error_feedback == "auto":
        error_feedback = not unbiased
    if unbiased and error_feedback:
        raise ValueError("error-feedback = True: excludes unbiased = True, whose noise it would feed back")
    plain = "bf16" if unbiased else "f32" if preset["compressor"] == "none" else "f16"
    chosen = (
        {"values": plain, "scope": "global", "feedback_decay": 1.0}
        | preset
        | {"error_feedback": error_feedback, "unbiased": unbiased}
    )
    check_parts(str(chosen["compressor"]), str(chosen["values"]), error_feedback, unbiased)
    return chosen if scope == "auto" else chosen | {"scope": scope}


def check_parts(compressor: str, values: str, error_feedback: bool, unbiased: bool) -> None:
    """Refuse parts of a codec that do not fit together.

    Raises:
        ValueError: one line that names the parts.
    """
    if unbiased and error_feedback:
        raise ValueError("unbiased rounding and error feedback exclude each other")
    if unbiased and (compressor not in UNBIASED or values not in UNBIASED_VALUES):
        able = ", ".join(UNBIASED_VALUES)
        raise ValueError(f"{compressor} with values {values} is never unbiased: none and randomk are, with {able}")
    if compressor in FACTORIZATIONS and values not in FINE_VALUES:
        able = ", ".join(FINE_VALUES)
        raise ValueError(f"{compressor} sends factors, for which {values} is too coarse: values must be one of {able}")
