"""Arrays and lists of strings in hickle files (``.hkl``), read as HDF5; nothing is unpickled.

What hickle writes, by version: 1 has the datasets ``data`` and ``type``; 2 and 3 a dataset
``data_0`` with an attribute ``type`` (``ndarray``, ``<class 'list'>``); 4 and 5 ``data`` with an
attribute ``base_type`` (and a pickled ``type``, which is left alone). A list of strings is one
dataset of strings, or from version 5 on a group of ``data0``, ``data1``, ... with a string's bytes
each, or a reference to the one where the same string was first. What hickle does not know is
pickled: marked as ``pickle``, from version 5 on by having no ``type``.

Source: hickle's own description of its file format and its public releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .backends import open_hdf5
from .limits import read_whole

_LETTERS = 4096  # in one string of a list, at most


@contextmanager
def open_hickle(path: Path) -> Iterator[Any]:
    """Open a hickle file and give its content: an HDF5 dataset or group.

    Raises
    ------
    InputError
        If it is no HDF5 file, or damaged, or what it holds is pickled.
    """
    with open_hdf5(path) as file:
        node = next((file[k] for k in ("data_0", "data") if k in file), None)
        if node is None:
            raise InputError(
                f"{path}: no hickle file: it has no 'data_0' or 'data', found {[*file]}"
            )
        _refuse_pickle(path, file, node)
        yield node


def _refuse_pickle(path: Path, file: Any, node: Any) -> None:
    kinds = [node.attrs.get("base_type"), node.attrs.get("type")]
    if "type" in file:  # version 1
        kinds.append(file["type"][()])
    words = [word for kind in kinds for word in np.ravel(kind) if isinstance(word, (bytes, str))]
    version = re.match(r"\d+", str(file.attrs.get("HICKLE_VERSION", "")))
    unmarked = version is not None and int(version[0]) >= 5 and "type" not in node.attrs
    if unmarked or not {"pickle", b"pickle"}.isdisjoint(words):
        raise InputError(
            f"{path}: its content is pickled, which can run code when it is read, and is not read "
            "here. Write it anew as an array or a list of strings with hickle"
        )


def read_strings(path: Path) -> list[str]:
    """Read a list of strings.

    Raises
    ------
    InputError
        If the file holds something else.
    """
    import h5py

    with open_hickle(path) as node:
        if hasattr(node, "keys"):  # a group, from version 5 on
            names = sorted(node, key=lambda n: _number(path, n))
            values = [_letters(path, node[name]) for name in names]
            letters = [
                _letters(path, node.file[v]) if isinstance(v, h5py.Reference) else v for v in values
            ]
            return [_text(path, np.asarray(letter).tobytes()) for letter in letters]
        values = read_whole(path, node)
    if np.ndim(values) != 1 or values.dtype.kind not in "SOU":
        raise InputError(f"{path}: {values.dtype} of shape {np.shape(values)}, expected strings")
    return [v if isinstance(v, str) else _text(path, bytes(v)) for v in values.tolist()]


def _letters(path: Path, dataset: Any) -> Any:
    if dataset.size > _LETTERS:
        raise InputError(f"{path}: '{dataset.name}' has {dataset.size} letters, expected a name")
    return dataset[()]


def _number(path: Path, name: str) -> int:
    match = re.fullmatch(r"data_?(\d{1,18})", name)
    if not match:
        raise InputError(f"{path}: '{name}' in a list of strings, expected data0, data1, ...")
    return int(match[1])


def _text(path: Path, data: bytes) -> str:
    try:
        return data.rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {data[:20]!r} among the strings is no text") from error
