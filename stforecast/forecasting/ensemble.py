"""Several forecasters of one task: their forecasts side by side, their mean and their spread."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..conventions.forms import with_members
from ..conventions.overlap import TRAINED, TRAINED_FINGERPRINT
from ..errors import InputError
from ..files import replacing

if TYPE_CHECKING:
    from .forecaster import Forecaster

__all__ = ["DIM", "load", "mean", "save", "spread"]

DIM = "realization"
_MEMBER = re.compile(r"member-(\d+)")


def mean(forecast: xr.Dataset) -> xr.Dataset:
    """Average the members of an ensemble forecast.

    Parameters
    ----------
    forecast : xarray.Dataset
        With the dimension ``realization``, as of :func:`stforecast.predict` with several models.

    Returns
    -------
    xarray.Dataset
        Without it, in the same units; ``cell_methods`` says "realization: mean". Lazy where
        `forecast` is.

    Raises
    ------
    InputError
        If there is no dimension ``realization``.
    """
    forecast = _members(forecast, 1)
    return _about(forecast.mean(DIM, keep_attrs=True), "mean", "ensemble mean")


def spread(forecast: xr.Dataset) -> xr.Dataset:
    """Standard deviation over the members of an ensemble forecast.

    The sum of squares is divided by n - 1. Over many cases, the root of the mean square of the
    spread times ``sqrt((n + 1) / n)`` equals the RMSE of the ensemble mean where members and truth
    are drawn alike (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1, eq. 15).

    Parameters
    ----------
    forecast : xarray.Dataset
        With the dimension ``realization`` of at least 2 members.

    Returns
    -------
    xarray.Dataset
        Without it; ``cell_methods`` says "realization: standard_deviation". A spread of
        temperatures in degC or K is a difference: it is the same number in both.

    Raises
    ------
    InputError
        If there is no dimension ``realization``, or one member only.
    """
    forecast = _members(forecast, 2)
    out = forecast.std(DIM, ddof=1, keep_attrs=True)
    return _about(out, "standard_deviation", "ensemble standard deviation")


def _members(forecast: xr.Dataset, least: int) -> xr.Dataset:
    """Refuse a forecast with fewer members; call their dimension as here."""
    forecast = with_members(forecast)
    found = forecast.sizes.get(DIM, 0)
    if found < least:
        raise InputError(
            f"expected a forecast with the dimension '{DIM}' of at least {least}, found "
            f"{found or 'none'}: predict(ds, [model, model, ...]) gives one"
        )
    return forecast


def _about(ds: xr.Dataset, method: str, words: str) -> xr.Dataset:
    for array in ds.data_vars.values():
        before = array.attrs.get("cell_methods")
        array.attrs["cell_methods"] = f"{f'{before} ' if before else ''}{DIM}: {method}"
        array.attrs["long_name"] = f"{array.attrs.get('long_name', array.name)}, {words}"
    return ds


def combine(forecasts: Sequence[xr.Dataset], labels: Sequence[int] | None = None) -> xr.Dataset:
    """Put forecasts of one task side by side, along a first dimension ``realization``.

    Those that are ensembles already give all their members.
    """
    each = [f.drop_vars(DIM) if DIM in f.dims else f.expand_dims(DIM) for f in forecasts]
    whole = xr.concat(
        each,
        DIM,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="drop_conflicts",
    )
    count = whole.sizes[DIM]
    about = {"standard_name": DIM, "long_name": "member"}
    whole = whole.assign_coords({DIM: (DIM, labels or range(count), about)})
    sources = [str(f.attrs.get("source", "")) for f in forecasts]
    for key in (TRAINED, TRAINED_FINGERPRINT):  # members may have been trained on several periods
        if told := dict.fromkeys(str(f.attrs[key]) for f in forecasts if key in f.attrs):
            whole.attrs[key] = ";".join(told)
    whole.attrs["source"] = f"{count} members: {', '.join(dict.fromkeys(sources))}"
    return whole


def save(members: Sequence[Forecaster], path: str | os.PathLike[str]) -> Path:
    """Write forecasters as a directory of bundles, ``member-0``, ``member-1``, and so on.

    Parameters
    ----------
    members : sequence of Forecaster
        Of one task.
    path : path-like
        The directory. An older ensemble there is replaced; anything else is not touched.

    Returns
    -------
    Path
        The directory, which ``predict(ds, path)`` takes.

    Raises
    ------
    InputError
        If there are none, their tasks differ, or `path` holds something else.
    """
    path = Path(path)
    refuse_differing(members)
    there = path.iterdir() if path.is_dir() else [path] if path.exists() else []
    if others := [p.name for p in there if not _MEMBER.fullmatch(p.name)]:
        raise InputError(
            f"{path} exists and is no ensemble (it holds {others[0]}); choose a new directory name"
        )
    with replacing(path) as directory:
        directory.mkdir()
        for number, member in enumerate(members):
            member.save(directory / f"member-{number}")
    return path


def load(path: str | os.PathLike[str], *, network: Any = None) -> list[Forecaster]:
    """Read the members that :func:`save` wrote, in their order.

    Parameters
    ----------
    path : path-like
        A directory with bundles ``member-0``, ``member-1``, ...
    network : callable, optional
        Makes the network of a member, for networks that are not this library's.

    Returns
    -------
    list of Forecaster

    Raises
    ------
    InputError
        If there is none, or one is damaged.
    """
    from .forecaster import load as load_bundle

    found = bundles(path)
    if not found:
        raise InputError(
            f"no ensemble at {path}: expected a directory with bundles member-0, member-1, ..."
        )
    return [load_bundle(p, network=network() if network else None) for p in found]


def bundles(path: str | os.PathLike[str]) -> list[Path]:
    """Directories of the members of an ensemble, in their order; empty where `path` is none.

    Raises
    ------
    InputError
        If there is a gap in their numbers.
    """
    path = Path(path)
    found = {int(m[1]): p for p in path.glob("member-*") if (m := _MEMBER.fullmatch(p.name))}
    if gaps := [n for n in range(max(found, default=0)) if n not in found]:
        raise InputError(f"{path}: member-{gaps[0]} is missing; copy the ensemble anew")
    return [found[n] for n in sorted(found)]


def members_of(model: Any) -> list[Any] | None:
    """List the models of an ensemble; None: a single model."""
    if isinstance(model, (str, os.PathLike)):
        return list(bundles(model)) or None
    return list(model) if isinstance(model, Sequence) else None


def shares(members: Sequence[Any], count: Any) -> list[int | None]:
    """How many members each of several models draws, for ``ensemble=count``.

    None: one forecast, as without an ensemble. Models that draw share the members evenly; others
    give one each, the first `count` of them.

    Raises
    ------
    InputError
        If `count` is more than models that draw none can give, or no number.
    """
    n = len(members)
    if count is None:
        return [None] * n
    silent = sum(getattr(member, "draws", None) is None for member in members)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"ensemble={count!r}, but there are {n} members")
    if silent and count > n:
        raise InputError(
            f"ensemble={count}, but there are {n} members, of which {silent} are models that draw "
            "no more: give more models, or fit(ds, task, warm_start=model, ensemble='crps')"
        )
    each = [count // n + (i < count % n) for i in range(n)]
    pairs = zip(members, each, strict=True)
    return [m and (None if getattr(one, "draws", None) is None else m) for one, m in pairs]


def refuse_differing(members: Sequence[Any]) -> None:
    """Refuse an ensemble without members, or of several tasks."""
    if not members:
        raise InputError("an ensemble needs at least one member, found none")
    for number, member in enumerate(members):
        if member.task != members[0].task:
            raise InputError(
                f"the members of an ensemble must have one task: that of member 0 is "
                f"({members[0].task}), that of member {number} ({member.task})"
            )
