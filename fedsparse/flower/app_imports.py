"""Imports the modules of somebody's Flower app, whose names may be those of other modules of this process."""

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fedsparse.errors import PluginError
from fedsparse.plugins import last_line


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """A context in which the modules of ``folder`` are found before all others, as on Flower's runtime.

    Modules of the same names from elsewhere are set aside meanwhile. At the end the app's own modules are forgotten, so
    that another app of this process may have modules of the same names.
    """
    files = [path for path in folder.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))]
    names = {file.stem for file in files}
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
    aside = {name: module for name, module in before.items() if not _is_in(module, folder)}
    for name in aside:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - (before.keys() - aside.keys()):
            if name.partition(".")[0] in names:
                del sys.modules[name]
        sys.modules.update(aside)


def _is_in(module: ModuleType, folder: Path) -> bool:
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(folder)


def load_component(reference: str, kind: type) -> Any:
    """The ServerApp or ClientApp at ``package.module:attribute``; the attribute may have dots.

    Raises:
        PluginError: it cannot be imported, or is of another type.
    """
    module, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        hint = "" if f"{module}.".startswith(f"{missing}.") else "; does the app's `pip install -e .` need to be run?"
        raise PluginError(f"{reference}: there is no module {missing!r}{hint}", traceback.format_exc()) from None
    except (Exception, SystemExit) as error:  # the app's code may raise anything while it is imported
        raise PluginError(f"{reference}: {last_line(error)}", traceback.format_exc()) from None
    if not isinstance(found, kind):
        raise PluginError(f"{reference} is of type {type(found).__name__}, and should be a {kind.__name__}")
    return found
