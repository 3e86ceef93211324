"""Read plain data out of a pickled ``.npy`` file without unpickling it.

``numpy.save`` pickles arrays of objects, and unpickling runs whatever the file asks for. Python's
own remedy, an ``Unpickler`` with an allow-list, still calls numpy's ``__setstate__`` on bytes from
the file, and reads every image. So nothing is unpickled here: :func:`scan_npy` follows the opcodes
by itself, and knows those only that build numbers, texts, lists, tuples, dicts and numpy arrays.
The only "calls" it understands are the four in ``_NAMES``, which make records of this module.
Array contents are passed over: an :class:`Array` knows where in the file they are, and reads them
when asked.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from .numpy_files import npy_header

_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2
_NAMES = {("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): "dtype"}
_NAMES |= {(core, name): name for core in _CORES for name in ("_reconstruct", "scalar")}

_CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): ()}
_NUMBERS = {ord("J"): "<i", ord("K"): "<B", ord("M"): "<H", ord("G"): ">d"}
_TEXTS = {ord("X"): "<I", 0x8C: "<B", 0x8D: "<Q"}
_BYTES = {ord("B"): "<I", ord("C"): "<B", 0x8E: "<Q"}
_PUTS = {ord("q"): "<B", ord("r"): "<I"}
_GETS = {ord("h"): "<B", ord("j"): "<I"}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_STOP, _MARK_CODE = ord("."), ord("(")
_PLAIN = re.compile(r"b1|[iu][1248]|f[248]")  # dtypes that are numbers and nothing else


class _Refused(Exception):
    """What is wrong with a pickle, for the one place that knows the file's name."""


@dataclass(frozen=True, slots=True)
class _Name:
    """One of the names in ``_NAMES``: a label, not the thing itself."""

    name: str


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Where bytes lie in the file."""

    start: int
    size: int


@dataclass(slots=True)
class _DType:
    """A numpy dtype as the file spells it."""

    code: str
    order: str = "="


@dataclass(slots=True, eq=False)
class Array:
    """A numpy array in a pickle: its shape, and where its contents are.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype or None
        None where it is no array of plain numbers.
    items : list
        The elements of an array of objects, in order.
    """

    shape: tuple[int, ...] = ()
    dtype: np.dtype | None = None
    items: list[Any] | None = None
    _at: _Bytes | None = None
    _fortran: bool = False

    def read(self, file: BinaryIO) -> np.ndarray:
        """Read the numbers from `file`, which is the one that was scanned."""
        if self.dtype is None or self._at is None:
            raise InputError("an array of plain numbers was expected, found objects")
        file.seek(self._at.start)
        values = np.frombuffer(file.read(self._at.size), self.dtype)
        return values.reshape(self.shape, order="F" if self._fortran else "C")


def scan_npy(path: str | os.PathLike[str]) -> Any:
    """Scan a ``.npy`` file that holds pickled objects.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Array
        The array in the file. Inside are Python's numbers, texts, lists, tuples and dicts, and
        :class:`Array` for arrays. Scalars of numpy's are None: nothing here needs them.

    Raises
    ------
    InputError
        If it is no such file, is truncated, or holds anything else than plain data.
    """
    path = Path(path)
    with path.open("rb") as file:
        shape, dtype, _, start = npy_header(file, path, objects=True)
        if not dtype.hasobject:
            raise InputError(
                f"{path}: holds an array of {dtype}, expected objects (a dict a trajectory)"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                value = _Scanner(data, start).run()
            except _Refused as error:
                raise InputError(
                    f"{path}: {error}. It was not unpickled; get it again from its owners, or "
                    "open the raw images instead"
                ) from None
    if not isinstance(value, Array) or value.items is None or value.shape != shape:
        raise InputError(f"{path}: does not hold the array of objects that its header announces")
    return value


class _Scanner:
    """A pickle's stack machine, for data only."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data, self.at = data, position
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.actions: dict[int, Callable[[], None]] = {
            0x80: lambda: self._number("<B"),  # PROTO
            0x95: lambda: self._number("<Q"),  # FRAME
            0x8A: lambda: self.stack.append(
                int.from_bytes(self._take("<B"), "little", signed=True)
            ),
            _MARK_CODE: self._mark,
            ord("]"): lambda: self.stack.append([]),
            ord("}"): lambda: self.stack.append({}),
            ord("a"): lambda: self._extend([self.stack.pop()]),
            ord("e"): lambda: self._extend(self._marked()),
            ord("s"): lambda: self._update([self.stack.pop(-2), self.stack.pop()]),
            ord("u"): lambda: self._update(self._marked()),
            ord("t"): self._tuple,
            0x94: lambda: self._put(len(self.memo)),
            ord("c"): self._global,
            0x93: lambda: self._name(self.stack.pop(-2), self.stack.pop()),
            ord("R"): self._reduce,
            ord("b"): self._build,
        }

    def run(self) -> Any:
        """Follow the opcodes to the end, and give the value."""
        try:
            while (code := self.data[self.at]) != _STOP:
                self.at += 1
                self._step(code)
            (value,) = self.stack
        except (IndexError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            if self.at >= len(self.data):
                raise _Refused("ends in the middle, it is truncated") from error
            raise _Refused(f"its pickle is damaged at byte {self.at}") from error
        return value

    def _step(self, code: int) -> None:
        push = self.stack.append
        if code in _PUTS:
            self._put(self._number(_PUTS[code]))
        elif code in _GETS:
            push(self.memo[self._number(_GETS[code])])
        elif code in _NUMBERS:
            push(self._number(_NUMBERS[code]))
        elif code in _BYTES:
            size = self._number(_BYTES[code])
            push(_Bytes(self.at, size))
            self.at += size
        elif code in _TEXTS:
            push(self._take(_TEXTS[code]).decode())
        elif code in _CONSTANTS:
            push(_CONSTANTS[code])
        elif code in _TUPLES:
            n = _TUPLES[code]
            items = tuple(self.stack[-n:])
            del self.stack[-n:]
            if len(items) != n:
                raise IndexError
            push(items)
        elif code in self.actions:
            self.actions[code]()
        else:
            raise _Refused(f"holds more than plain data (opcode {code:#04x} at byte {self.at - 1})")

    # --- reading ------------------------------------------------------------------------------

    def _number(self, form: str) -> Any:
        start = self.at
        self.at += struct.calcsize(form)  # past the end, the next opcode will be missing
        return struct.unpack_from(form, self.data, start)[0]

    def _take(self, form: str) -> bytes:
        """Bytes after a number that says how many."""
        size = self._number(form)
        self.at += size
        return self.data[self.at - size : self.at]

    def _line(self) -> str:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            self.at = len(self.data)
            raise IndexError
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    # --- building -----------------------------------------------------------------------------

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def _tuple(self) -> None:
        items = tuple(self._marked())  # first: it changes which list the stack is
        self.stack.append(items)

    def _put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        keys = items[::2]
        # Only plain keys: to hash a tuple nested a million deep would overflow the C stack.
        if type(target) is not dict or not all(type(key) in (str, int) for key in keys):
            raise TypeError
        target.update(zip(keys, items[1::2], strict=True))

    def _global(self) -> None:
        module = self._line()
        self._name(module, self._line())

    def _name(self, module: Any, name: Any) -> None:
        if (module, name) not in _NAMES:
            raise _Refused(f"wants to load {module}.{name}, and data need nothing of the kind")
        self.stack.append(_Name(_NAMES[module, name]))

    def _reduce(self) -> None:
        """A call. Whatever it names, a record of this module comes of it."""
        arguments = self.stack.pop()
        match self.stack.pop(), arguments:
            case _Name("_reconstruct"), (_Name("ndarray"), tuple(), _Bytes()):
                self.stack.append(Array())
            case _Name("dtype"), (str(code), *_):
                self.stack.append(_DType(code))
            case _Name("scalar"), (_DType(), *_):
                self.stack.append(None)
            case _:
                raise _Refused(f"calls something that makes no data, at byte {self.at - 1}")

    def _build(self) -> None:
        """The state of an array or a dtype; nothing else has one."""
        state = self.stack.pop()
        match self.stack[-1], state:
            case _DType() as dtype, (_, str(order), None, None, None, *_):
                dtype.order = order
            case Array() as array, (_, tuple(shape), _DType() as dtype, bool(fortran), contents):
                _fill(array, shape, dtype, fortran, contents)
            case _:
                raise _Refused(
                    f"sets the state of something that is no data, at byte {self.at - 1}"
                )


def _fill(array: Array, shape: tuple, dtype: _DType, fortran: bool, contents: Any) -> None:
    """Set what the file says of an array, if it is consistent."""
    if not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused("holds an array whose shape is no shape")
    size = math.prod(shape)
    array.shape, array._fortran = shape, fortran
    if isinstance(contents, list):
        array.items = contents
        fits = dtype.code.startswith("O") and len(contents) == size
    elif not isinstance(contents, _Bytes) or dtype.code.startswith("O"):
        fits = False
    elif _PLAIN.fullmatch(dtype.code) and dtype.order in "<>=|":
        array.dtype = np.dtype(dtype.order.replace("|", "=") + dtype.code)
        array._at = contents
        fits = contents.size == size * array.dtype.itemsize
    else:
        fits = True  # of a kind that nobody will read: texts, dates
    if not fits:
        raise _Refused(f"holds an array of shape {shape} whose contents do not fit it")
