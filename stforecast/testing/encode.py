"""Synthetic video, and its encoding, for the writers of video formats."""

from __future__ import annotations

import io
from typing import Any

import numpy as np


def moving_blobs(frames: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Three soft blobs that drift over a grey ramp and bounce: uint8 (frames, H, W, 3) RGB."""
    size = np.array(shape, float)
    y, x = np.mgrid[: shape[0], : shape[1]] / size.reshape(2, 1, 1)
    video = np.repeat((0.2 + 0.2 * (x + y) / 2)[None, ..., None], frames, axis=0) + np.zeros(3)
    for channel in range(3):
        place, speed = rng.random(2), rng.normal(0, 0.04, 2)
        for t in range(frames):
            at = 1 - np.abs((place + t * speed) % 2 - 1)  # reflected at 0 and 1
            blob = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 0.02)
            video[t, ..., channel] += 0.6 * blob
    return (255 * video.clip(0, 1)).round().astype(np.uint8)


def encode_jpeg(image: np.ndarray, *, quality: int = 2) -> bytes:
    """Encode an image (H, W, 3) uint8 as JPEG; `quality` from 1 (best) to 31."""
    return encode(image[None], "image2pipe", "mjpeg", "yuvj444p", qmin=quality, qmax=quality)


def encode_mp4(frames: np.ndarray, *, fps: int = 10) -> bytes:
    """Encode frames (T, H, W, 3) uint8, of even height and width, as H.264 in an mp4 file."""
    return encode(frames, "mp4", "libx264", "yuv420p", fps=fps, crf="10")


def encode(
    frames: np.ndarray,
    container: str,
    codec: str,
    pixels: str,
    *,
    fps: int = 10,
    qmin: int | None = None,
    qmax: int | None = None,
    **options: str,
) -> bytes:
    """Encode frames (T, H, W, 3) uint8 with a codec of PyAV, into a container of that kind."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        if qmin is not None:
            stream.codec_context.qmin, stream.codec_context.qmax = qmin, qmax
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()
