"""HDF5 files, opened so that what is wrong with them comes in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from .sources import READ_ERRORS


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; errors of opening and of reading in the block name it.

    Raises
    ------
    InputError
        If it is no HDF5 file, is truncated or damaged.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            yield file
    except InputError:
        raise
    # A damaged tree answers with KeyError, or with a group where a dataset was.
    except (*READ_ERRORS, KeyError, AttributeError, TypeError) as error:
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: truncated, damaged or no HDF5 file ({what}). Copy or download it again"
        ) from error
