"""Measures of single pictures: SSIM, PSNR, and the forms of them that the SimVP papers print.

Both depend on `data_range`, the distance between the smallest and the largest value that data *can*
have: 1 for pictures on [0, 1]. Figures in print use several, so it is never guessed here. Data
without such a range (a temperature in kelvin) have no SSIM and no PSNR until somebody states one.

All functions take pictures along the last two axes and give one value for each; channels and
frames are averaged by :func:`stforecast.evaluate`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["paper_psnr", "paper_ssim", "psnr", "relative_squared_error", "ssim", "wrapped_error"]

_WINDOW = 7  # pixels; scikit-image's default
_K1, _K2 = 0.01, 0.03
BLOCK = 2**16  # pixels worked on at once: what fits the core's own memory
_SLACK = 0.25  # how far truth may lie outside [0, 1]: a range fitted on training data is overshot


def ssim(image: Any, reference: Any, *, data_range: float) -> np.ndarray:
    """Structural similarity of pictures: 1 where they are equal.

    The definition is that of scikit-image's ``structural_similarity`` with its defaults: uniform
    windows of 7 x 7 pixels, K1 = 0.01, K2 = 0.03, sample covariance, averaged over the windows that
    lie wholly in the picture. Nothing is clipped. Computed in float64.

    Parameters
    ----------
    image, reference : array-like of shape (..., H, W)
        H and W of at least 7.
    data_range : float
        Distance between the smallest and the largest possible value, in the unit of the data.

    Returns
    -------
    numpy.ndarray of shape (...), float64
        One value a picture, without a unit, at most 1.

    Raises
    ------
    InputError
        If shapes differ, pictures are smaller than the window, or the range is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> picture = np.linspace(0, 1, 64).reshape(8, 8)
    >>> float(ssim(picture, picture, data_range=1))
    1.0
    """
    a, b = _pair(image, reference)
    span = _span(data_range)
    if min(a.shape[-2:]) < _WINDOW:
        raise InputError(
            f"SSIM takes windows of {_WINDOW} x {_WINDOW} pixels; the pictures have "
            f"{a.shape[-2]} x {a.shape[-1]}"
        )
    shape = a.shape
    a, b = a.reshape(-1, *shape[-2:]), b.reshape(-1, *shape[-2:])
    out = np.empty(len(a))
    rows = max(1, BLOCK // (shape[-2] * shape[-1]))
    for start in range(0, len(a), rows):
        at = slice(start, start + rows)
        out[at] = _similarity(a[at], b[at], span)
    return out.reshape(shape[:-2])


def _similarity(a: np.ndarray, b: np.ndarray, span: float) -> np.ndarray:
    """SSIM of pictures (N, H, W)."""
    pixels = _WINDOW**2
    # Variances are differences of large sums where the mean is large (kelvin): take it off first.
    # SSIM's first factor needs the true means, so the offset goes back in there.
    offset = b.mean(axis=(-2, -1), keepdims=True)
    a, b = a - offset, b - offset
    mean_a, mean_b = _window_sums(a) / pixels, _window_sums(b) / pixels
    unbiased = pixels / (pixels - 1)
    both = unbiased * (_window_sums(a * a + b * b) / pixels - mean_a * mean_a - mean_b * mean_b)
    covariance = unbiased * (_window_sums(a * b) / pixels - mean_a * mean_b)
    mean_a += offset
    mean_b += offset
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    light = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    similarity = light * (2 * covariance + c2) / (both + c2)
    return np.asarray(similarity.mean(axis=(-2, -1)))


def psnr(image: Any, reference: Any, *, data_range: float) -> np.ndarray:
    """Peak signal-to-noise ratio of pictures: 10 log10(data_range^2 / mean squared error).

    Parameters
    ----------
    image, reference : array-like of shape (..., H, W)
        Nothing is clipped.
    data_range : float
        Distance between the smallest and the largest possible value, in the unit of the data.

    Returns
    -------
    numpy.ndarray of shape (...), float64
        In dB, one value a picture; infinite where the two are equal.

    Raises
    ------
    InputError
        If shapes differ or the range is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> float(psnr(np.full((4, 5), 0.6), np.full((4, 5), 0.5), data_range=1).round(6))
    20.0
    """
    return decibels(relative_squared_error(image, reference, data_range=data_range))


def relative_squared_error(image: Any, reference: Any, *, data_range: float) -> np.ndarray:
    """Mean squared error of pictures (..., H, W), in parts of the squared range."""
    a, b = _pair(image, reference)
    difference = (a - b) / _span(data_range)
    return np.asarray((difference * difference).mean(axis=(-2, -1)))


def decibels(relative_error: np.ndarray) -> np.ndarray:
    """PSNR from the mean squared error in parts of the squared range."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(relative_error)


def paper_ssim(image: Any, reference: Any) -> np.ndarray:
    """SSIM as the SimVP papers print it: `image` clipped to [0, 1], and a data range of 2.

    Their code left the range to an old scikit-image, which took it for 2 (-1 to 1) with every float
    array. Values come out higher than with the true range.

    Parameters
    ----------
    image, reference : array-like of shape (..., H, W)
        On [0, 1]. The reference is not clipped, and may go beyond by a quarter: flows scaled by the
        extremes of their training period do.

    Returns
    -------
    numpy.ndarray of shape (...)
    """
    return ssim(np.clip(image, 0, 1), _on_unit(reference), data_range=2)


def paper_psnr(image: Any, reference: Any) -> np.ndarray:
    """PSNR as the papers' code of the time computed it: see :func:`wrapped_error`.

    Parameters
    ----------
    image, reference : array-like of shape (..., H, W)
        On [0, 1].

    Returns
    -------
    numpy.ndarray of shape (...)
        In dB. A difference of 16/255 squares to 0: large errors read as small ones.
    """
    return decibels(wrapped_error(image, reference))


def wrapped_error(image: Any, reference: Any) -> np.ndarray:
    """Mean squared error of 8-bit pictures *in 8-bit arithmetic*, in parts of 255^2.

    Both are clipped to [0, 1] (a reference beyond it would wrap around as well) and become whole
    numbers from 0 to 255 (cut, not rounded); their differences and the squares of these are taken
    modulo 256. That is a fault, kept here because published figures rest on it (they are higher
    for it: noise at 9.0 dB reads 27.9).
    """
    a, b = np.clip(image, 0, 1), np.clip(_on_unit(reference), 0, 1)
    if np.shape(a) != np.shape(b):
        raise InputError(f"pictures differ in shape: {np.shape(a)} and {np.shape(b)}")
    # Scaled in float32, as that code did: in float64 a 254.99999 would be cut that was 255 there.
    eight = [(x.astype(np.float32) * np.float32(255)).astype(np.uint8) for x in (a, b)]
    difference = eight[0] - eight[1]
    square = difference * difference
    return np.asarray(square.mean(axis=(-2, -1), dtype=np.float64) / 255**2)


def _pair(image: Any, reference: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(image, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(
            f"expected two arrays (..., H, W) of one shape, found {a.shape}, {b.shape}"
        )
    return a, b


def _span(data_range: float) -> float:
    span = float(data_range)
    if not (np.isfinite(span) and span > 0):
        raise InputError(
            "data_range is the distance between the smallest and the largest possible value, a "
            f"positive number; found {data_range!r}"
        )
    return span


def _on_unit(reference: Any) -> np.ndarray:
    array = np.asarray(reference)
    low, high = float(array.min()), float(array.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise InputError(
            "the papers' SSIM and PSNR are of data on [0, 1]; the truth runs from "
            f"{low:g} to {high:g}: scale forecast and truth alike, or leave out protocol"
        )
    return array


def _window_sums(x: np.ndarray) -> np.ndarray:
    """Sums over all windows of 7 x 7: (..., H, W) to (..., H - 6, W - 6)."""
    for axis in (-1, -2):
        n = x.shape[axis]

        def cut(array: np.ndarray, start: int, stop: int, axis: int = axis) -> np.ndarray:
            return array[..., start:stop] if axis == -1 else array[..., start:stop, :]

        # 7 = 4 + 2 + 1: four additions where seven slices would need six.
        two = cut(x, 0, n - 1) + cut(x, 1, n)
        four = cut(two, 0, n - 3) + cut(two, 2, n - 1)
        x = cut(four, 0, n - 6) + cut(two, 4, n - 2) + cut(x, 6, n)
    return x
