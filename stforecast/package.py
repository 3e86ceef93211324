"""What the package is: its version, names loaded at their first use, and what is loaded first."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from contextlib import suppress
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


def load_proj() -> None:
    """Load pyproj, if it is installed, so that it calls its own copy of the C library PROJ.

    From release 2.48 on, ecCodes' wheels bring a second PROJ and offer its functions to all that
    is loaded later. A pyproj that is loaded then calls these, and the process crashes, at its end
    at the latest. What reads GRIB calls this first; where ecCodes is there already, pyproj is told
    to look for functions in its own libraries before others.
    """
    if "pyproj" in sys.modules:
        return
    before = sys.getdlopenflags() if hasattr(sys, "getdlopenflags") else None
    deep = getattr(os, "RTLD_DEEPBIND", 0) if "gribapi" in sys.modules else 0
    if before is not None and deep:  # Linux: elsewhere each library has functions of its own
        sys.setdlopenflags(before | deep)
    try:
        with suppress(ImportError):
            import_module("pyproj")
    finally:
        if before is not None and deep:
            sys.setdlopenflags(before)
