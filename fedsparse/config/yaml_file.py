"""Reads the settings of a YAML file as text, and refuses a file that is no clear mapping.

A value stays the text that was typed, as a flag's value does, and Config reads both alike. YAML alone would read 2:4 as
124, 010 as 8, 1e-2 as text, and no as false.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from fedsparse.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Leaves every value but null as text, and refuses a key that is given twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [str(key.value).replace("_", "-") for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, words) for tag, words in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file: its values are text, None, lists and mappings.

    Raises:
        ConfigError: the file is missing, unreadable, not YAML, or not a mapping.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"cannot read config file {path}: it is no regular file")
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not a text file"
        raise ConfigError(f"cannot read config file {path}: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should hold lines like 'rounds: 100', not a {type(content).__name__}")
    return {str(key).replace("_", "-"): value for key, value in content.items()}
