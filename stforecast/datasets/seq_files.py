"""Norpix StreamPix sequences (``.seq``) of JPEG or PNG images, as Caltech Pedestrian has them.

Layout, little-endian. Header of 1,024 bytes: magic number 0xFEED (uint32); ``Norpix seq`` in 24
bytes of UTF-16; version and size of the header (int32); 512 bytes of description; at byte 548
width, height, bits a pixel, real bits a sample, bytes an image, image format, number of frames,
origin and true image size (uint32); at byte 584 the frame rate (float64). Then the images: a uint32
that counts itself and the image's bytes, the image, 8 bytes of time stamp, and in many files 8
empty bytes more, which shows behind the first image.

Source: the "Sequence File Format" of StreamPix's manual, as public readers of it describe it.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError
from .backends import stamp

MAGIC = struct.pack("<I", 0xFEED)
_NAME = "Norpix seq".encode("utf-16-le")
_HEADER = 1024
_LEAST = 13  # bytes of a frame: its size, an image and a time stamp
_IMAGES = {1: "PNG", 2: "PNG", 102: "JPEG", 201: "JPEG"}


@dataclass(frozen=True)
class SeqHeader:
    """What the header of a sequence says."""

    width: int
    height: int
    image_format: int
    frames: int
    frame_rate: float


def read_seq_header(path: Path) -> SeqHeader:
    """Read the header of a ``.seq`` file.

    Raises
    ------
    InputError
        If it is no such file, or holds images in another form than JPEG or PNG.
    """
    with open(path, "rb") as file:
        head = file.read(_HEADER)
    if len(head) < _HEADER or not head.startswith(MAGIC) or head[4 : 4 + len(_NAME)] != _NAME:
        raise InputError(
            f"{path}: no StreamPix sequence, or truncated in its header: it starts with "
            f"{head[:4].hex() or 'nothing'}, expected {MAGIC.hex()}. Copy or extract it again"
        )
    size = struct.unpack_from("<i", head, 32)[0]
    if size != _HEADER:
        raise InputError(f"{path}: a header of {size} bytes, expected {_HEADER}")
    width, height, _, _, _, image_format, frames = struct.unpack_from("<7I", head, 548)
    if image_format not in _IMAGES:
        raise InputError(
            f"{path}: images in format {image_format}, expected JPEG (102, 201) or PNG (1, 2)"
        )
    rate = struct.unpack_from("<d", head, 584)[0]
    least = _LEAST * frames
    if least > (end := os.stat(path).st_size):
        raise InputError(
            f"{path}: its header says {frames} frames, which take {least} bytes at least, and it "
            f"has {end}: truncated or damaged. Copy or extract it again"
        )
    if not frames:  # a recording that was stopped hard
        frames = len(_starts(path, stamp(path), 0))
    return SeqHeader(width, height, image_format, frames, rate)


def read_seq(path: Path, frames: int, wanted: range) -> list[bytes]:
    """Read encoded images of a sequence.

    Parameters
    ----------
    path : Path
    frames : int
        How many the header says there are.
    wanted : range
        Which, counted from 0.

    Returns
    -------
    list of bytes

    Raises
    ------
    InputError
        If the file ends before, or an image's size cannot be; the frame is named.
    """
    starts = _starts(path, stamp(path), frames)
    with open(path, "rb") as file:
        return [_image(file, int(starts[i])) for i in wanted]


def _image(file: IO[bytes], start: int) -> bytes:
    file.seek(start)
    size = struct.unpack("<I", file.read(4))[0]
    return file.read(size - 4)


@lru_cache(maxsize=256)
def _starts(path: Path, _changed: tuple[int, ...], frames: int) -> np.ndarray:
    """Where each image begins; 0 frames: as many as there are."""
    starts: list[int] = []
    at, gap = _HEADER, 8
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        while len(starts) < frames or not frames:
            file.seek(at)
            field = file.read(4)
            if len(field) < 4 and not frames:
                break
            size = struct.unpack("<I", field)[0] if len(field) == 4 else 0
            if size < 5 or at + size > end:
                found = f"an image of {size} bytes" if len(field) == 4 else "its end"
                raise InputError(
                    f"{path}: {found} at byte {at} of {end} for frame {len(starts)} of "
                    f"{frames or 'unknown many'}: truncated or damaged. Copy or extract it again"
                )
            starts.append(at)
            at += size + gap
            if len(starts) == 1:
                file.seek(at)
                if file.read(4) == bytes(4):
                    gap, at = 16, at + 8
    return np.asarray(starts, np.int64)
