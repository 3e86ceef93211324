"""What a bundle says of how it came to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..task import Task

if TYPE_CHECKING:
    import xarray as xr

    from .config import TrainConfig


def units(
    ds: xr.Dataset, task: Task, led: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, str]]:
    """CF attributes of each channel that a forecast is to have again.

    Parameters
    ----------
    ds : xarray.Dataset
        Canonical.
    task : Task
    led : mapping
        Channels of `ds` that stand for one of the task's, one a lead time.
    """
    keep = ("units", "long_name", "standard_name")
    names = {v: led.get(v, (v,))[0] for v in task.channels}
    return {
        v: {k: str(a[k]) for k in keep if k in (a := ds[name].attrs)}
        for v, name in names.items()
        if name in ds
    }


def period(ds: xr.Dataset) -> str:
    """Say which times a data set holds."""
    time = ds.indexes["time"]
    return f"{time[0]} to {time[-1]}, {len(time)} times"


def provenance(
    ds: xr.Dataset, config: TrainConfig, steps: int, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a bundle says of its training: data, period, settings."""
    title = ds.attrs.get("title") or ds.attrs.get("source") or "an untitled data set"
    keep = {k: str(ds.attrs[k]) for k in ("source", "comment", "license") if k in ds.attrs}
    return {
        "data": str(title),
        "data_attributes": keep,
        "period": period(ds),
        "config": replace(config, steps=steps).to_dict(),
        **(about or {}),
    }
