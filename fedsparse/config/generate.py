"""python -m fedsparse.config.generate writes the defaults into ``configs/default.yaml`` and ``pyproject.toml``.

People read the first; Flower reads ``[tool.flwr.app.config]`` in the second.
"""

import json
from pathlib import Path

import yaml

from fedsparse.config import GROUPS, Config

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


if __name__ == "__main__":
    (ROOT / "configs" / "default.yaml").write_text(default_yaml())
    pyproject = ROOT / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().partition(TABLE)[0] + run_config())
