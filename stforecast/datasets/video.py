"""Pictures and videos as arrays: decoded by FFmpeg through PyAV, resized and cropped."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError
from .archives import Member
from .limits import most_pixels, refuse_picture

_NO_PROTOCOL = {"protocol_whitelist": "none"}
_MAGIC = {b"\xff\xd8\xff": "mjpeg", b"\x89PNG\r\n\x1a\n": "png"}


def decode_image(data: bytes, *, name: str, grey: bool = False) -> np.ndarray:
    """Decode a JPEG or PNG, which errors call `name`, as uint8 (H, W, 3) RGB.

    With `grey` as (H, W, 1): the luma of ITU-R BT.601 (0.299 red + 0.587 green + 0.114 blue). A
    damaged image is refused, never filled up with grey.
    """
    av = _av(name)
    codec = next((c for magic, c in _MAGIC.items() if data.startswith(magic)), None)
    if codec is None:
        raise InputError(f"{name}: neither a JPEG nor a PNG: it starts with {bytes(data[:8])!r}")
    refuse_picture(name, *_picture_size(data))
    try:
        context = av.CodecContext.create(codec, "r")
        context.options = {"err_detect": "explode", "max_pixels": most_pixels()}
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except av.error.FFmpegError as error:
        raise InputError(
            f"{name}: a damaged or truncated {'JPEG' if codec == 'mjpeg' else 'PNG'} "
            f"({len(data)} bytes). Copy or download it again"
        ) from error
    if not frames:
        raise InputError(f"{name}: an image file without an image")
    return _pixels(frames[0], grey)


def decode_images(
    encoded: Iterable[tuple[str, bytes]],
    fit: Callable[[np.ndarray], np.ndarray],
    *,
    grey: bool = False,
) -> np.ndarray:
    """Decode images, given by name, of one size, and bring each (H, W, C) to another with `fit`.

    Gives (n, height, width, C) uint8. An image of another size than the first is refused.
    """
    out: list[np.ndarray] = []
    shape: tuple[int, ...] | None = None
    for name, data in encoded:
        image = decode_image(data, name=name, grey=grey)
        if image.shape != (shape := shape or image.shape):
            raise InputError(
                f"{name}: {image.shape[0]} x {image.shape[1]} pixels, those before it have "
                f"{shape[0]} x {shape[1]}"
            )
        out.append(fit(image))
    return np.stack(out)


def read_images(
    files: Sequence[Member],
    fit: Callable[[np.ndarray], np.ndarray],
    start: int,
    stop: int,
    *,
    grey: bool = False,
) -> np.ndarray:
    """Read some of the files, and decode them as :func:`decode_images` does."""
    return decode_images(((str(f), f.read()) for f in files[start:stop]), fit, grey=grey)


def _picture_size(data: bytes) -> tuple[int, int]:
    """Height and width as the header of a PNG or JPEG says, before anything is decoded.

    Zeros where it has none: it is damaged, as decoding will say.
    """
    if data.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
        return height, width
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 1 if kind == 0xFF else 2 + length  # fill bytes may stand before a marker
    return 0, 0


def decode_video(
    source: bytes | Path,
    start: int,
    stop: int,
    *,
    name: str,
    grey: bool = False,
    fit: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """Decode frames `start` to `stop` of a video, counted from 0 in the order in which they show.

    Each (H, W, 3) RGB or (H, W, 1), uint8 as :func:`decode_image` gives it, is brought to its size
    with `fit`. AVI and MP4 are read, as the data sets have them: some other containers are texts
    that name what to read next, such as an address. Gives (n, height, width, C); n is less than
    ``stop - start`` where the video ends before `stop`.
    """
    av = _av(name)
    frames = []
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file,
            av.open(file, format=_container(file), options=_NO_PROTOCOL) as container,
        ):
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None:  # of a codec that has no name
                raise InputError(f"{name}: no video in it that can be decoded")
            refuse_picture(name, stream.codec_context.height, stream.codec_context.width)
            stream.codec_context.thread_count = 1  # reading is parallel over clips already
            stream.codec_context.options = {
                "err_detect": "explode",
                "max_pixels": most_pixels(),
            }
            # From the first frame on: containers' seek tables are not exact to the frame.
            for frame in itertools.islice(container.decode(stream), start, stop):
                refuse_picture(name, frame.height, frame.width)
                frames.append(fit(_pixels(frame, grey)))
    except av.error.FFmpegError as error:
        raise InputError(
            f"{name}: cannot be decoded after frame {start + len(frames)} ({error.strerror}): it is"
            " truncated, damaged or no video. Copy or download it again"
        ) from error
    return np.stack(frames) if frames else np.empty((0, 0, 0, 1 if grey else 3), np.uint8)


def _container(file: IO[bytes]) -> str:
    magic = file.read(4)
    file.seek(0)
    return "avi" if magic == b"RIFF" else "mp4"


def _av(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"{name}: reading pictures and videos needs PyAV: pip install 'stforecast[video]'"
        ) from error
    return av


def _pixels(frame: Any, grey: bool) -> np.ndarray:
    if not grey:
        return frame.to_ndarray(format="rgb24")
    # JPEG's own luma, or BT.601 of RGB; the limited range of videos is stretched to 0..255.
    return frame.to_ndarray(format="gray")[..., None]


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize pictures.

    A pixel is the mean of the area that it covers where an axis shrinks (exactly, fractions of
    pixels included); where it grows, values are interpolated linearly between pixels' centres.
    `frames` (..., H, W, C), uint8 or float32, keep their dtype (uint8 is rounded to the nearest);
    `size` is the new height and width.
    """
    height, width = frames.shape[-3:-1]
    if (height, width) == tuple(size):
        return frames
    rows, columns = _weights(height, size[0]), _weights(width, size[1])
    out = np.empty((*frames.shape[:-3], *size, frames.shape[-1]), frames.dtype)
    for at in np.ndindex(frames.shape[:-3]):
        planes = np.moveaxis(frames[at], -1, 0).astype(np.float32)
        planes = np.moveaxis(rows @ planes @ columns.T, 0, -1)
        out[at] = np.rint(planes) if frames.dtype == np.uint8 else planes
    return out


@lru_cache(maxsize=32)
def _weights(old: int, new: int) -> np.ndarray:
    """Weights (new, old) of old pixels in new ones; rows add up to 1."""
    edges = np.linspace(0, old, new + 1)
    if new > old:
        centres = np.clip((edges[:-1] + edges[1:]) / 2 - 0.5, 0, old - 1)
        weights = np.clip(1 - np.abs(centres[:, None] - np.arange(old)), 0, None)
    else:
        pixels = np.arange(old)
        weights = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        weights = np.clip(weights, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def centre_crop(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut the middle out of pictures (..., H, W, C); an odd rest goes to the bottom and right."""
    height, width = frames.shape[-3:-1]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    if top < 0 or left < 0:
        raise InputError(f"pictures of {height} x {width} are too small to cut {size} out of")
    return frames[..., top : top + size[0], left : left + size[1], :]
