"""python -m fedsparse.config.generate writes what follows from the settings.

The defaults go into ``configs/default.yaml``, which people read, and into ``[tool.flwr.app.config]`` of
``pyproject.toml``, which Flower reads; what each setting does goes into ``docs/settings.md``.
"""

import json
import re
from pathlib import Path

import yaml

from fedsparse.config import GROUPS, Config
from fedsparse.config.effects import NEEDS
from fedsparse.config.settings import Settings, choices

ROOT = Path(__file__).parents[2]
TABLE = "[tool.flwr.app.config]\n"


def default_yaml() -> str:
    """The defaults as a settings file, with a comment for each group."""
    flat = Config.from_mapping({}).flat()
    parts = ["# Every setting with its default; python main.py --help explains them.\n"]
    for group in GROUPS:
        keys = [name.replace("_", "-") for name in group.model_fields]
        settings = yaml.safe_dump({key: flat[key] for key in keys}, sort_keys=False)
        parts.append(f"\n# {str(group.__doc__).splitlines()[0]}\n{settings}")
    return "".join(parts)


def run_config() -> str:
    """The defaults as Flower's run config."""
    return TABLE + "".join(f"{key} = {json.dumps(value)}\n" for key, value in Config.from_mapping({}).flat().items())


def settings_page() -> str:
    """The page of all settings, a table for each group."""
    head = """# Every setting

Written by `python -m fedsparse.config.generate` from what `python main.py --help` shows. The name `clients-per-round`
is the flag `--clients-per-round`, a key in YAML and in Flower's run config, and `clients_per_round` in Python. A
setting "with" others has an effect only beside them.
"""
    return head + "".join(_table(group) for group in GROUPS)


def _table(group: type[Settings]) -> str:
    title = str(group.__doc__).splitlines()[0].rstrip(".")
    lines = [f"\n## {title}\n", "| setting | default | what it does |", "|---|---|---|"]
    for name, field in group.model_fields.items():
        key, default = name.replace("_", "-"), str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default
        sentences = [_as_markdown(str(field.description))]
        if allowed := choices(field):
            sentences.append(f"*One of* {_as_markdown(allowed)}.")
        if needs := NEEDS.get(key):
            sentences.append(f"*With* {_as_markdown('; '.join(need.words for need in needs))}.")
        lines.append(f"| `{key}` | {f'`{default}`' if default else 'empty'} | {' '.join(sentences)} |")
    return "\n".join(lines) + "\n"


def _as_markdown(text: str) -> str:
    """Plain text as Markdown on one line, where flags and what was marked as code are code."""

    def marked(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return f"`{code}`" if code else f"\\{found[0]}"

    return re.sub(r"``?(.+?)``?|(?<![\w-])(--[a-z][\w-]*)|[*_|<>]", marked, " ".join(text.split()))


if __name__ == "__main__":
    (ROOT / "configs" / "default.yaml").write_text(default_yaml())
    pyproject = ROOT / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().partition(TABLE)[0] + run_config())
    (ROOT / "docs" / "settings.md").write_text(settings_page())
