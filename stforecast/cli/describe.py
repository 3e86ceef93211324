"""Say what a path is, what it holds, and which function opens it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .. import datasets
from ..errors import InputError


@dataclass(kw_only=True)
class Options:
    """Say what a path is and what it holds; exit code 2 where nothing opens it."""

    path: str
    """A file, a directory, a .zip, a zarr store or the URL of one."""


def main(options: Options) -> None:
    """Run the command."""
    found = datasets.describe(options.path)
    sys.stdout.write(f"{found}\n")
    if found.adapter is None:
        raise InputError(f"{options.path}: {found.reason}")
