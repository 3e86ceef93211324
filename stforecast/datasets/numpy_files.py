"""Arrays in numpy's own files, looked at without reading them, and never unpickled."""

from __future__ import annotations

import zipfile
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from .backends import READ_ERRORS, stamp
from .joining import some
from .limits import open_zip, refuse_claim


class NpzMember:
    """An array in an ``.npz`` file: the header is read now, the data when they are used.

    Parameters
    ----------
    path : Path
    key : str

    Raises
    ------
    InputError
        If the file is no zip or truncated, lacks `key`, or holds pickled objects, which are never
        opened (they can run code).
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self._changed = stamp(path)
        try:
            with open_zip(path) as file:
                names = file.namelist()
                if f"{key}.npy" not in names:
                    raise InputError(
                        f"{path}: no array '{key}' in it; found "
                        f"{some(n.removesuffix('.npy') for n in names) or 'nothing'}"
                    )
                info = file.getinfo(f"{key}.npy")
                with file.open(info) as member:
                    self.shape, self.dtype, self._fortran, head = npy_header(member, path)
        except (*READ_ERRORS, zipfile.BadZipFile, NotImplementedError) as error:
            raise self._damaged(error) from error
        if info.file_size != head + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize:
            raise InputError(f"{path}: '{key}' does not have the size its header says: damaged")
        stored = min(info.compress_size, path.stat().st_size)
        refuse_claim(f"{path}: '{key}'", info.file_size, stored)
        self._stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        self._start = info.header_offset, head

    @property
    def array(self) -> np.ndarray:
        """All of it: mapped from the file where it is not compressed, else read and kept.

        A file that has changed is refused: what is mapped beyond its end would end the process.
        """
        if not self.path.is_file() or stamp(self.path) != self._changed:
            raise InputError(
                f"{self.path}: it was changed while it was read. Write new data to a new file, and "
                "start anew"
            )
        return self._array

    @cached_property
    def _array(self) -> np.ndarray:
        try:
            if self._stored:
                offset, head = self._start
                with open(self.path, "rb") as file:  # the zip's own header of this member
                    file.seek(offset + 26)
                    name, extra = np.frombuffer(file.read(4), "<u2").tolist()
                offset += 30 + name + extra + head
                order: Literal["F", "C"] = "F" if self._fortran else "C"
                return np.memmap(self.path, self.dtype, "r", offset, self.shape, order)
            with open_zip(self.path) as archive, archive.open(f"{self.key}.npy") as member:
                return np.lib.format.read_array(member, allow_pickle=False)
        except (*READ_ERRORS, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_array"}

    def _damaged(self, error: BaseException) -> InputError:
        if isinstance(error, InputError):
            return error
        return InputError(
            f"{self.path}: '{self.key}' cannot be read ({error}): truncated, damaged or no .npz. "
            "Copy or download it again"
        )


def npy_header(file: Any, name: object) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Read the head of an ``.npy`` file: shape, dtype, whether in Fortran order, and its length.

    Raises
    ------
    InputError
        If it is none, or says that it holds pickled objects or text, not numbers.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, RecursionError, MemoryError, TokenError) as error:
        raise InputError(
            f"{name}: no array of numpy's .npy format in it, or its header is damaged ({error})"
        ) from error
    if dtype.kind not in "fiu":
        raise InputError(
            f"{name}: holds pickled Python objects or text ({dtype}), expected numbers. Pickled "
            "files are not opened: they can run code"
        )
    return shape, dtype, fortran, file.tell()
