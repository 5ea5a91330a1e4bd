"""The base class of all groups of settings: pydantic models whose fields are flags, YAML keys and run-config keys."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from fedsparse.plugins import is_own


class Settings(BaseModel):
    """A group of settings. Frozen; an unknown key is an error. A field's docstring is its ``--help``."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )


class Given(dict[str, Any]):
    """Settings as the user gave them, by kebab-case names.

    Attributes:
        typed: the names of the settings that came as flags or keywords, not from a file.
    """

    typed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OneOf:
    """Marks a text field that must be one of some names, or refer to an object of the user's own.

    Args:
        names: the allowed names.
        own: whether ``module:attribute`` and ``path/to/file.py:attribute`` are allowed too.
        suffixes: endings of file names that are allowed too, each with its description.
        folders: whether a path with a slash in it is allowed too.
    """

    names: Iterable[str]
    own: bool = True
    suffixes: Mapping[str, str] = field(default_factory=dict)
    folders: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        is_path = name.endswith(tuple(self.suffixes)) or (self.folders and "/" in name)
        if name in self.names or is_path or (self.own and is_own(name)):
            return name
        near = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {near[0]}? It " if near else ""
        raise ValueError(f"{hint}should be {self.described()}")

    def described(self) -> str:
        """The choices in words."""
        choices = ", ".join(self.names)
        files = "".join(f", {what}" for what in self.suffixes.values())
        folders = ", a folder such as ./images" * self.folders
        return choices + files + folders + ", or one's own as file.py:attribute" * self.own


@dataclass(frozen=True)
class SomeOf(OneOf):
    """Marks a text field of such names, as many as one likes, separated by commas."""

    def _check(self, names: str) -> str:
        check = super()._check
        return ",".join(check(name.strip()) for name in names.split(",")) if names.strip() else ""


def choices(field: FieldInfo) -> str:
    """The allowed values of a setting in words; empty when it has no such list."""
    is_union = get_origin(field.annotation) in (Union, UnionType)
    options = get_args(field.annotation) if is_union else (field.annotation,)
    names = [str(name) for option in options if get_origin(option) is Literal for name in get_args(option)]
    described = [mark.described() for mark in field.metadata if isinstance(mark, OneOf)]
    return ", ".join(described or names) if described or len(names) > 1 else ""
