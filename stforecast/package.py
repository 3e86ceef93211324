"""What the package is: its version, and names that are loaded when they are first used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


class _Door(ModuleType):
    """A package with the names of its stub, whatever submodules are called."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule binds it in its package. Where a function of the same name is
        # public (datasets.describe), the function is what the package shows.
        if not (isinstance(value, ModuleType) and self.__dict__["_homes"].get(name)):
            super().__setattr__(name, value)


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Give a package the names that its stub, ``__init__.pyi``, imports; each at its first use.

    The stub is the one list: type checkers read it, and so does this (PEP 562).

    Parameters
    ----------
    package : str
        The package's ``__name__``.

    Returns
    -------
    tuple
        The package's ``__getattr__``, ``__dir__`` and ``__all__``.
    """
    module = sys.modules[package]
    stub = Path(str(module.__file__)).with_suffix(".pyi")
    homes = {
        alias.name: node.module  # None: a submodule itself
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    module.__dict__["_homes"] = homes
    module.__class__ = _Door

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        found = import_module(f"{package}.{home or name}")
        if home:
            found = getattr(found, name)
            module.__dict__[name] = found
        return found

    return load, lambda: sorted(homes), list(homes)
