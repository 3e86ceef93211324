"""Power spectra along the rows of maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def powers(
    members: np.ndarray, truth: np.ndarray, circular_longitude: bool
) -> Iterator[np.ndarray]:
    """Power (N, L, H) at each wavenumber: the members' mean power, then truth's.

    Parameters
    ----------
    members : numpy.ndarray of shape (M, N, L, H, W)
    truth : numpy.ndarray of shape (N, L, H, W)
    circular_longitude : bool
        Whether rows go round the globe. Other rows are mirrored at their end first, which gives the
        cosine transform of Denis, Côté and Laprise (2002, *Spectral decomposition of
        two-dimensional atmospheric fields on limited-area domains using the DCT*, MWR 130, eq. 5):
        a trend along the row is no jump at its ends.

    Notes
    -----
    With F_k = sum_j x_j exp(-2 pi i j k / W) / W the power is |F_k|^2, twice that where -k is
    another wavenumber: what belongs to k in the row's mean square, to which the powers sum.
    """
    total = _power(members[0], circular_longitude)
    for one in members[1:]:
        total += _power(one, circular_longitude)
    yield from np.moveaxis(total / len(members), -1, 0)
    yield from np.moveaxis(_power(truth, circular_longitude), -1, 0)


def _power(rows: np.ndarray, circular: bool) -> np.ndarray:
    rows = rows if circular else np.concatenate([rows, rows[..., ::-1]], axis=-1)
    size = rows.shape[-1]
    power = np.square(np.abs(np.fft.rfft(rows, axis=-1) / size))
    power[..., 1 : (size + 1) // 2] *= 2
    # A mirrored row has no power at its last wavenumber.
    return power if circular else power[..., :-1]


def spectrum(terms: np.ndarray) -> np.ndarray:
    """(forecast, truth, forecast over truth; wavenumber; ...)."""
    forecast, truth = terms.reshape(2, -1, *terms.shape[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([forecast, truth, forecast / truth])


def wavenumbers(size: int, circular_longitude: bool) -> np.ndarray:
    """Waves along a row."""
    return np.arange(size) / (1 if circular_longitude else 2)
