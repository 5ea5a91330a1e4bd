"""Finds the object that a setting names: one of the catalogue, or the user's own."""

import importlib
import importlib.util
import inspect
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from fedsparse.errors import ConfigError, PluginError, cause


def is_own(name: str) -> bool:
    """Whether a setting names an object of the user's own: ``module:attribute`` or ``path/to/file.py:attribute``."""
    place, _, attribute = name.rpartition(":")
    return bool(place) and attribute.isidentifier()


def named(catalogue: Mapping[str, str], name: str) -> Any:
    """The object of a name in a dict of the catalogue, or the user's own object that ``name`` refers to.

    Raises:
        PluginError: see :func:`load`.
    """
    return load(catalogue.get(name, name))


def load(reference: str) -> Any:
    """The object at ``module:attribute`` or ``path/to/file.py:attribute``.

    Raises:
        PluginError: there is no such file, module or attribute, or importing it fails; one line.
    """
    place, _, attribute = reference.rpartition(":")
    try:
        if place.endswith(".pickle"):
            return load_pickle(place)
        module = load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except PluginError as error:
        raise PluginError(f"{reference}: {error}") from None
    except ModuleNotFoundError as error:
        missing = error.name or place
        hint = "; name a file as path/to/file.py:attribute" if missing == place.partition(".")[0] else ""
        raise PluginError(f"{reference}: there is no module {missing!r}{hint}", traceback.format_exc()) from None
    except Exception as error:  # the user's own code may raise anything while it is imported
        raise PluginError(f"{reference}: {last_line(error)}", traceback.format_exc()) from None
    if not hasattr(module, attribute):
        public = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise PluginError(f"{reference}: {place} has no {attribute!r}; it has {', '.join(public) or 'nothing'}")
    return getattr(module, attribute)


def load_file(path: Path) -> ModuleType:
    """The module in a file of the user's, executed once a process, and again when the file has changed.

    The file's folder is searched for what it imports. A file in a package is imported as a module of that package.

    Raises:
        PluginError: there is no such file.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    folder, words = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        folder, words = folder.parent, [folder.name, *words]
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if len(words) > 1:
        return importlib.import_module(".".join(words))
    version = sha256(f"{path} {path.stat().st_mtime_ns}".encode()).hexdigest()[:8]
    name = f"{path.stem}_{version}"  # two files of one name are two modules
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


@lru_cache(maxsize=16)
def load_pickle(path: str) -> Any:
    """The object in a file that ``fedsparse.run`` wrote; as much to be trusted as a file of code."""
    return pickle.loads(Path(path).read_bytes())


def absolute(reference: str) -> str:
    """The same reference for other processes and working directories.

    A relative path becomes absolute, and so does a module that is a file of the present folder. A module of a package
    keeps its name, because the package may be imported under it already.
    """
    place, _, attribute = reference.rpartition(":")
    file = Path(place).expanduser()
    if not place.endswith((".py", ".pickle")):
        file = Path(*place.split(".")).with_suffix(".py")
        in_package = "." in place and _origin(place) is not None
        if in_package or not file.is_file() or _origin(place) not in (None, str(file.absolute())):
            return reference
    return f"{file.absolute()}:{attribute}"


def _origin(module: str) -> str | None:
    """The file that a module is imported from; None when there is no such module."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec else None


def call(function: Callable[..., Any], *positional: Any, **settings: Any) -> Any:
    """Call ``function`` with the ``settings`` that its signature takes, because a user's own may take only some."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function in C without a signature
        return function(*positional, **settings)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        settings = {key: value for key, value in settings.items() if key in {p.name for p in parameters}}
    return function(*positional, **settings)


def last_line(error: BaseException) -> str:
    """An exception as its type and the first line of its message, and where in the user's file it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{cause(error)}{place}"


@contextmanager
def blamed(setting: str, name: str) -> Iterator[None]:
    """A context that turns an exception of the user's own ``name`` into one line that names its setting.

    Raises:
        PluginError: in place of that exception, with its traceback for the log.
    """
    try:
        yield
    except PluginError as error:
        raise PluginError(f"{setting} = {str(error).removeprefix(f'{setting} = ')}", error.traceback) from None
    except Exception as error:
        if isinstance(error, ConfigError) or not is_own(name):
            raise
        raise PluginError(f"{setting} = {name}: {last_line(error)}", traceback.format_exc()) from None
