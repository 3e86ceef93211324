"""The dimensions of a caller's arrays: which one is what, and their values in canonical form."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import InputError
from .angles import ascending, per_degree, to_degrees, wrap
from .attributes import PACKING, text
from .number_dates import dates_from_numbers
from .times import canonical_times, is_dates, times_like, without_rounding

TIME, LEAD, VALID = "time", "prediction_timedelta", "valid_time"

LAT, LON, Y, X = "latitude", "longitude", "y", "x"

_LONGEST = 9.2e9  # seconds that timedelta64[ns] holds

DIMS = (TIME, LEAD, LAT, LON, Y, X)  # the canonical order

MEMBER = "realization"
MEMBERS = (
    "realization realisation number member members ensemble ensemble_member ens_member ens mem "
    "sample"  # of GenCast
)

_INITS = (
    "init_time init initialization_time initialisation_time initial_time reference_time reftime "
    "forecast_reference_time forecast_init_time"
)

_NAMES = {
    TIME: f"time valid_time date datetime {_INITS}",
    LEAD: "prediction_timedelta lead_time leadtime lead step forecast_period forecast_hour fhour "
    "forecast_step forecast_lead lead_hour lead_hours lead_day lead_days lead_time_hours fhr tau "
    "forecast_time",
    LAT: "latitude lat nav_lat xlat",
    LON: "longitude lon long nav_lon xlong",
    Y: "y row rows height nj j rlat south_north grid_latitude projection_y_coordinate",
    X: "x col column columns width ni i rlon west_east grid_longitude projection_x_coordinate",
}

_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}

_DEGREES = {
    f"{degree}{_}{side}": role
    for role, sides in ((LAT, ("north", "n")), (LON, ("east", "e")))
    for side in sides
    for degree in ("degrees", "degree")
    for _ in ("_", "")
}


def role_of(name: Hashable, variable: xr.Variable | None = None) -> str | None:
    """Tell which canonical dimension a coordinate describes, if any."""
    attrs: Mapping[Any, Any] = {} if variable is None else variable.attrs
    if variable is not None and variable.dtype.kind in "mM":
        return LEAD if variable.dtype.kind == "m" else TIME
    if variable is not None and variable.dtype == object and is_dates(variable.to_numpy()):
        return TIME
    standard, axis = text(attrs, "standard_name"), text(attrs, "axis")
    if standard in _ROLES:
        return _ROLES[standard]
    units = text(attrs, "units").lower()
    if units in _DEGREES:
        return _DEGREES[units]
    if axis in ("X", "Y") and units.startswith("degree"):
        return LAT if axis == "Y" else LON
    return TIME if axis == "T" else _ROLES.get(str(name).lower())


def find_axes(ds: xr.Dataset) -> dict[Hashable, tuple[str, Hashable | None]]:
    """Find what the dimensions of a Dataset are.

    Returns
    -------
    dict
        ``{dimension: (canonical dimension, name of the coordinate with its values or None)}``,
        without the dimensions that are no canonical one.
    """
    found: dict[Hashable, tuple[str, Hashable | None]] = {}
    for dim in ds.dims:
        along = coords_along(ds, dim)
        along.sort(key=lambda c: c != dim)
        roles = [(role, c) for c in along if (role := role_of(c, ds.variables[c]))]
        roles.sort(key=lambda r: r[0] in (Y, X))  # lat(y) says more than y(y)
        named = role_of(dim)
        if named == TIME:  # time since the start in `time`, and dates in another
            roles.sort(key=lambda r: r[0] != TIME)
        if named == LEAD and not roles and ds.sizes[dim] == 1:
            continue  # one lead time that is not told says nothing
        if roles or named:
            found[dim] = roles[0] if roles else (str(named), None)
    return found


def coords_along(ds: xr.Dataset, *dims: Hashable) -> list[Hashable]:
    """Names of the coordinates with these dimensions; others of theirs have size 1."""
    return [
        name
        for name, coord in ds.coords.items()
        if {*dims} <= {*coord.dims} and all(d in dims or ds.sizes[d] == 1 for d in coord.dims)
    ]


def says_init(name: Hashable, attrs: Mapping[str, Any]) -> bool:
    """Whether a coordinate of dates is called an initialisation."""
    standard = text(attrs, "standard_name") == "forecast_reference_time"
    return standard or str(name).lower() in _INITS.split()


def says_valid(name: Hashable, attrs: Mapping[str, Any]) -> bool:
    """Whether a coordinate of dates is called a valid time, and not merely ``time``."""
    return name == VALID or "valid" in text(attrs, "long_name").lower()


def scalar(ds: xr.Dataset, role: str) -> Hashable | None:
    """Name of the scalar coordinate that stands for a time or a lead time."""
    found = []
    for name, coord in ds.coords.items():
        standard = {LEAD: "forecast_period", TIME: "forecast_reference_time"}[role]
        called = _ROLES.get(str(name).lower()) == role or (
            text(coord.attrs, "standard_name") == standard
        )
        dated = coord.ndim == 0 and coord.dtype.kind in "mMO"
        if dated and called and role_of(name, coord.variable) == role:
            found.append(name)
    # Where there is an initialisation and a valid time, the initialisation counts.
    found.sort(key=lambda c: (not says_init(c, ds[c].attrs), says_valid(c, ds[c].attrs)))
    return found[0] if found else None


def unit_of_lead(name: Hashable, variable: xr.Variable) -> Any:
    """Unit of lead times that are numbers, a ``pandas.Timedelta``; None where nothing tells it."""
    units = text(variable.attrs, "units").strip()
    if not units:  # `forecast_hour` says it
        words = str(name).lower()
        units = "h" if "hour" in words else "D" if "day" in words else "none"
    if units == "M":  # months, which pandas would take for minutes once in small letters
        return None
    units = units.lower()
    short: Any = {"hrs": "h", "mins": "min", "secs": "s", "d": "D"}
    short |= dict.fromkeys(("w", "week", "weeks"), "W")
    try:
        return pd.Timedelta(1, unit=short.get(units, units)).as_unit("ns")
    except ValueError:
        return None


def lead_times(name: Hashable, variable: xr.Variable) -> np.ndarray:
    """Lead times as ``timedelta64[ns]``, whatever their unit; those rounded by a file put right."""
    given = np.atleast_1d(variable.to_numpy()).ravel()
    units = text(variable.attrs, "units")
    if given.dtype.kind in "fiu" and (unit := unit_of_lead(name, variable)):
        seconds = given.astype(np.float64) * unit.total_seconds()
        given = given * unit.to_timedelta64()
    elif given.dtype.kind == "m":
        seconds = given / np.timedelta64(1, "s")
    else:
        hint = f"pd.to_timedelta(ds['{name}'], 'h')"
        if units == "M" or units.lower().startswith(("mon", "y")):
            hint = f"ds['{name}'].astype(int) * np.timedelta64(30, 'D')"
        raise InputError(
            f"lead time '{name}' holds {given.dtype} values with units {units!r}, expected "
            f"timedelta64, or a unit of one length: ds.assign_coords({name}={hint})"
        )
    if (np.abs(seconds) > _LONGEST).any():
        raise InputError(
            f"lead time '{name}' goes to {np.nanmax(np.abs(seconds)) / 31_556_952:.0f} years, "
            "expected at most 292, which is what timedelta64[ns] holds"
        )
    return without_rounding(name, given.astype("timedelta64[ns]"))


def _refuse_radians(latitude: Axis, longitude: Axis) -> None:
    """Refuse what is called degrees, or has no unit, but spans the whole globe in radians."""
    lat, lon = latitude.values, longitude.values
    if lat is None or lon is None or min(len(lat), len(lon)) < 2:
        return
    if longitude.per_degree != 1.0 or latitude.per_degree != 1.0:
        return
    spacing = float(lon[-1] - lon[0]) / (len(lon) - 1)
    rest = np.pi / 2 - np.abs(lat[[0, -1]])
    to_poles = lat[0] < 0 < lat[-1] and (rest > -1e-6).all() and (rest < np.diff(lat).max()).all()
    round_the_globe = abs(len(lon) * spacing - 2 * np.pi) < 0.01 * spacing
    if to_poles and round_the_globe:
        raise InputError(
            f"latitude '{latitude.coord}' and longitude '{longitude.coord}' look like radians "
            f"round the whole globe ({lat[0]:g} to {lat[-1]:g}, {lon[0]:g} to {lon[-1]:g}), and "
            "their units do not say so: set attrs['units'] of both to 'radian', or convert them "
            "with np.rad2deg"
        )


@dataclass(frozen=True, eq=False)
class Axis:
    """One canonical dimension as the caller has it."""

    role: str
    dim: Hashable | None  # None: a scalar coordinate, without a dimension
    coord: Hashable | None = None  # name of the coordinate that gives its values
    variable: xr.Variable | None = None  # that coordinate, as it came
    values: np.ndarray | None = None  # canonical values
    order: np.ndarray | None = None  # canonical position -> caller's position; None: the same
    per_degree: float = 1.0  # of the caller's unit, which may be a radian

    @classmethod
    def of(cls, role: str, dim: Hashable | None, coord: Hashable | None, ds: xr.Dataset) -> Axis:
        """Bring one dimension of `ds` into canonical form; refuse what cannot be ordered."""
        if coord is None and role in (Y, X):
            return cls(role, dim)
        if coord is None:
            raise InputError(
                f"dimension '{dim}' has no coordinate: expected its values, "
                f"set with ds.assign_coords({dim}=...)"
            )
        variable = ds.variables[coord].to_base_variable().compute()  # dask would keep its chunks
        values = given = np.atleast_1d(variable.to_numpy()).ravel()
        if given.size == 0:
            raise InputError(f"dimension '{dim}' has size 0: expected at least one {role}")
        if packed := [key for key in PACKING[:2] if key in variable.attrs]:
            raise InputError(
                f"coordinate '{coord}' is packed (it has {packed[0]}), expected its values: decode "
                "it with xr.decode_cf(ds)"
            )
        per = per_degree(role, coord, variable) if role in (LAT, LON) else 1.0
        if role == TIME:
            values = canonical_times(coord, dates_from_numbers(coord, variable))
        elif role == LEAD:
            values = lead_times(coord, variable)
        elif given.dtype.kind not in "fiu":
            raise InputError(f"{role} '{coord}' holds {given.dtype} values, expected numbers")
        elif role in (LAT, LON):
            values = to_degrees(given.astype(np.float64), per, poles=role == LAT)
        missing = pd.isna(values) | (np.isinf(values) if values.dtype.kind == "f" else False)
        if missing.any():
            raise InputError(
                f"coordinate '{coord}' has {missing.sum()} missing values (NaN), expected none: "
                f"select the others with ds.isel({dim}=ds['{coord}'].notnull())"
            )
        if role in (Y, X):
            return cls(role, dim, coord, variable, values)
        if role == LON:
            values, order = ascending(coord, values)
        else:
            order = np.argsort(values, kind="stable")
            values = values[order]
        twice = np.flatnonzero(values[1:] == values[:-1])
        if len(twice):
            raise InputError(
                f"{role} '{coord}' has {len(twice)} duplicated values, the first is "
                f"{values[twice[0]]}: drop them with ds.drop_duplicates('{dim}')"
            )
        if role == LAT and np.abs(values).max() > 90.001:
            raise InputError(
                f"latitude '{coord}' goes from {values[0]:g} to {values[-1]:g}, expected -90 to "
                "90: are latitude and longitude exchanged, or in other units?"
            )
        same = bool((order == np.arange(len(order))).all())
        return cls(role, dim, coord, variable, values, None if same else order, per)

    @property
    def inverse(self) -> np.ndarray | None:
        """Caller's position -> canonical position; None: the same."""
        return None if self.order is None else np.argsort(self.order)

    def has(self, values: np.ndarray | None) -> bool:
        """Whether `values` are the canonical values of this axis, but for rounding."""
        if values is None or self.values is None:
            return values is self.values
        if values.shape != self.values.shape:
            return False
        if values.dtype.kind == "f":
            return bool(np.allclose(values, self.values, rtol=0, atol=1e-5))
        return bool((values == self.values).all())

    def in_convention(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Write other canonical values in the caller's convention; their order in it."""
        assert self.variable is not None
        given = np.atleast_1d(self.variable.to_numpy()).ravel()
        order = None
        if self.role in (TIME, LEAD) and self.values is not None:
            # Theirs as they came, rounded and in their zone, where they are among them.
            at = pd.Index(self.values).get_indexer(pd.Index(values))
            if (at >= 0).all():
                return given[at if self.order is None else self.order[at]], None
        if self.role == TIME:
            return times_like(values, given), None
        if self.role == LEAD and given.dtype.kind != "m":
            assert self.coord is not None
            values = values / unit_of_lead(self.coord, self.variable).to_timedelta64()
        if self.role == LON:
            low, high = float(given.min()) / self.per_degree, float(given.max()) / self.per_degree
            start = 0.0 if low >= 0 and high < 360 else -180.0 if high < 180 else low
            values = wrap(values, start)
        if self.role in (LAT, LON):
            order = np.argsort(values, kind="stable")[:: -1 if given[0] > given[-1] else 1]
            values = values[order] * self.per_degree
        if given.dtype.kind in "iu" and (values % 1).any():  # whole degrees or hours hold no parts
            return values, order
        return values.astype(given.dtype), order


def axes_of(
    ds: xr.Dataset,
    variables: Mapping[Hashable, tuple[Hashable, ...]],
    found: Mapping[Hashable, tuple[str, Hashable | None]],
) -> dict[str, Axis]:
    """Describe the canonical dimensions of variables (name: dimensions), which must share them."""
    names = quoted(variables)
    used: dict[str, tuple[Hashable | None, Hashable | None]] = {}  # role: dimension, coordinate
    for dim in (d for dims in variables.values() for d in dims if d in found):
        role, coord = found[dim]
        if used.setdefault(role, (dim, coord))[0] != dim:
            raise InputError(
                f"the variables {names} lie on different dimensions of {role} "
                f"('{used[role][0]}' and '{dim}'): take one by variables=[...]"
            )
    if LAT in used:  # a level called `height`, of size 1
        used = {role: where for role, where in used.items() if role not in (Y, X)}
    if TIME not in used:
        used[TIME] = None, scalar(ds, TIME)
    lead = scalar(ds, LEAD)
    if used[TIME][1] == VALID:  # a history, whatever lead time it is made of
        _, coord = used.pop(LEAD, (None, None))
        if coord is not None and ds[coord].size > 1:
            raise InputError(
                f"the times beside the lead times '{coord}' are called '{VALID}', expected "
                f"initialisations: rename them with ds.rename({VALID}='{TIME}') if they are that"
            )
    elif LEAD not in used and lead is not None:
        used[LEAD] = None, lead
    axes = {role: Axis.of(role, *used[role], ds) for role in DIMS if role in used}
    if {LAT, LON} <= axes.keys():
        _refuse_radians(axes[LAT], axes[LON])
    if LEAD in axes and not np.any(axes[LEAD].values):  # a lead time of zero: an analysis
        del axes[LEAD]
    for name, dims in variables.items():
        for role, axis in axes.items():
            if axis.dim is not None and axis.dim not in dims:
                raise InputError(
                    f"'{name}' lacks the {role} dimension '{axis.dim}' that others of {names} "
                    "have: take them one by one by variables=[...]"
                )
    return axes


def quoted(names: Iterable[Hashable]) -> str:
    """Names in quotes, for a message."""
    return ", ".join(repr(str(n)) for n in names)
