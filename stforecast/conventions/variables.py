"""The names of variables: what the caller calls them, and what they are called here.

``geopotential_500`` is the variable ``geopotential`` on 500 hPa, whatever the caller calls it.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr

from ..errors import InputError
from .attributes import PACKING, unread
from .axes import LAT, LEAD, LON, MEMBERS, TIME, X, Y, quoted, role_of, scalar
from .levels import Levels, level_attrs, level_name, levels_of, split_level

logger = logging.getLogger(__name__)

# Canonical name (WeatherBench 2, ECMWF): short names in GRIB, CDS, WeatherBench 1, CMIP, WRF.
_UPPER_AIR = {  # on levels
    "temperature": "t ta",
    "geopotential": "z",
    "geopotential_height": "gh zg hgt",
    "specific_humidity": "q hus",
    "relative_humidity": "r hur",
    "u_component_of_wind": "u ua",
    "v_component_of_wind": "v va",
    "vertical_velocity": "w wap",
    "vorticity": "vo",
    "divergence": "",
    "potential_vorticity": "pv",
    "ozone_mass_mixing_ratio": "o3",
    "specific_cloud_ice_water_content": "ciwc",
    "specific_cloud_liquid_water_content": "clwc",
    "wind_speed": "",
}
VARIABLES = _UPPER_AIR | {
    "2m_temperature": "t2m 2t tas t2",
    "2m_dewpoint_temperature": "d2m 2d",
    "sea_surface_temperature": "sst tos",
    "skin_temperature": "skt ts",
    "10m_u_component_of_wind": "u10 10u uas",
    "10m_v_component_of_wind": "v10 10v vas",
    "100m_u_component_of_wind": "u100 100u",
    "100m_v_component_of_wind": "v100 100v",
    "10m_wind_speed": "si10 10si",
    "mean_sea_level_pressure": "msl psl slp",
    "surface_pressure": "sp ps",
    "total_precipitation": "tp",
    "total_precipitation_6hr": "",
    "total_precipitation_24hr": "",
    "total_cloud_cover": "tcc",
    "total_column_water_vapour": "tcwv",
    "total_column_water": "tcw",
    "boundary_layer_height": "blh",
    "convective_available_potential_energy": "cape",
    "sea_ice_cover": "siconc",
    "snow_depth": "",
    "surface_solar_radiation_downwards": "ssrd",
    "surface_thermal_radiation_downwards": "strd",
    "toa_incident_solar_radiation": "tisr",
    "land_sea_mask": "lsm",
    "soil_type": "slt",
    "orography": "oro orog",
    "geopotential_at_surface": "",
}
# `t1` and `v2` are too often other things: levels of one digit want an underscore.
_ON_LEVEL = re.compile(r"(?:(.+)_(\d+(?:\.\d+)?)|(.*[a-z])(\d\d+))(?:_?hpa)?")
_ALIASES = {alias: name for name, aliases in VARIABLES.items() for alias in aliases.split()}
_EXTRA = "an extra dimension"


# --- what is meant by a name ---------------------------------------------------------------------


def canonical_name(name: str) -> str:
    """Return WeatherBench 2's name of a variable (``t2m`` is ``2m_temperature``).

    A pressure level (hPa) is part of the name: ``z500`` and ``z_500`` are ``geopotential_500``.
    Unknown names stay as they are. Capitals are forgiven in names longer than a letter.
    """
    if name in _ALIASES or name in VARIABLES or len(name) < 2:
        return _ALIASES.get(name, name)
    lower = name.lower()
    if lower in _ALIASES or lower in VARIABLES:
        return _ALIASES.get(lower, lower)
    if match := _ON_LEVEL.fullmatch(lower):
        base, level = match[1] or match[3], float(match[2] or match[4])
        if level > 0 and _ALIASES.get(base, base) in _UPPER_AIR:
            return level_name(_ALIASES.get(base, base), level)
    return name


class Meant(NamedTuple):
    """A variable that is meant by a name: where it is, and on which level."""

    name: Hashable  # of the variable in the caller's Dataset
    canonical: str
    levels: Levels | None = None
    position: int | None = None  # of the level, where the variable has several

    @property
    def label(self) -> Hashable:
        """The caller's name, with the level where the variable has several."""
        if self.position is None:
            return self.name
        assert self.levels is not None
        return level_name(str(self.name), float(self.levels.values[self.position]))

    @property
    def base(self) -> str:
        """The canonical name without the level."""
        on_level = None if self.canonical in VARIABLES else split_level(self.canonical)
        return on_level[0] if on_level else self.canonical

    @property
    def attrs(self) -> dict[str, Any]:
        """What the level adds to the attributes."""
        if self.levels is None:
            return {}
        return level_attrs(float(self.levels.values[self.position or 0]))

    def of(self, ds: xr.Dataset) -> xr.Variable:
        """Take the variable out of a Dataset, lazily; its level is in the attributes."""
        variable = ds.variables[self.name].copy(deep=False)
        if self.position is not None:
            assert self.levels is not None
            variable = variable.isel({self.levels.dim: self.position})
            variable.attrs = variable.attrs | self.attrs
        return variable


def meant(ds: xr.Dataset, wanted: str | None = None) -> list[Meant]:
    """Find what is meant by a name, or without one all variables by their canonical names.

    Parameters
    ----------
    ds : xarray.Dataset
        Any. Only coordinates are read.
    wanted : str, optional
        The caller's name, a canonical one or an alias, with or without a level: ``t2m``, ``z500``.

    Returns
    -------
    list of Meant
        Empty if nothing fits; several if the name is ambiguous.
    """
    if wanted is None:
        return [_by_itself(ds, name) for name in ds.data_vars]
    canonical = canonical_name(wanted)
    if wanted in ds.data_vars:
        return [Meant(wanted, canonical)]
    alike = [Meant(v, canonical) for v in ds.data_vars if canonical_name(str(v)) == canonical]
    if alike or (on_level := split_level(canonical)) is None:
        return alike
    base, level = on_level
    for name in ds.data_vars:
        if canonical_name(str(name)) != base or (levels := levels_of(ds, name)) is None:
            continue
        position = levels.find(level)
        if position is not None:
            several = levels.dim is not None and len(levels.values) > 1
            alike.append(Meant(name, canonical, levels, position if several else None))
    return alike


def _by_itself(ds: xr.Dataset, name: Hashable) -> Meant:
    """Name a variable that nobody asked for: with its level, if it is known to lie on one."""
    canonical = canonical_name(str(name))
    if (canonical in VARIABLES and canonical not in _UPPER_AIR) or split_level(canonical):
        return Meant(name, canonical)
    levels = levels_of(ds, name)
    # A scalar level comes with every variable of a Dataset, whether it lies on it or not.
    known = levels is not None and (levels.dim is not None or canonical in _UPPER_AIR)
    if levels is None or not known or len(levels.values) != 1:
        return Meant(name, canonical)
    return Meant(name, level_name(canonical, float(levels.values[0])), levels)


# --- which of them are taken ---------------------------------------------------------------------


def named(ds: xr.Dataset, wanted: str) -> Meant:
    """Find the one variable that is asked for by its own name, its canonical one or an alias."""
    found = meant(ds, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"variable '{wanted}' could be any of {quoted(m.name for m in found)}: name one"
        )
    base, level = split_level(canonical_name(wanted)) or (None, 0.0)
    for name in (v for v in ds.data_vars if canonical_name(str(v)) == base):
        levels = levels_of(ds, name)
        there = f"has {levels.text} hPa" if levels else "has no coordinate of pressure levels"
        hint = "ask for one of these" if levels else f"ask for '{base}' if it lies on that one"
        raise InputError(f"variable '{wanted}': '{name}' {there}, not {level:g} hPa: {hint}")
    near = difflib.get_close_matches(wanted, [str(v) for v in ds.data_vars], n=3)
    raise InputError(
        f"variable '{wanted}' is not in the Dataset, which has {quoted(ds.data_vars)}"
        f"{f' (did you mean {quoted(near)}?)' if near else ''}: if it goes by another name, "
        f"use ds.rename({{'...': '{wanted}'}})"
    )


def choose(
    ds: xr.Dataset,
    variables: Sequence[str] | None,
    found: Mapping[Hashable, tuple[str, Any]],
    *,
    every_level: bool = False,
) -> list[Meant]:
    """Take the variables asked for, or all that can be used.

    Parameters
    ----------
    ds : xarray.Dataset
        The caller's.
    variables : sequence of str, optional
        By the caller's names, canonical ones or aliases.
    found : mapping
        As :func:`stforecast.conventions.axes.find_axes` gives it.
    every_level : bool
        Unasked, take a variable on several pressure levels as one variable a level.

    Raises
    ------
    InputError
        If one that is asked for cannot be used, if none can, or two are one variable.
    """
    roles = {dim: role for dim, (role, _) in found.items()}
    if variables is not None:
        picked = [named(ds, wanted) for wanted in variables]
    else:
        picked = [one for m in meant(ds) for one in (_by_level(ds, m) if every_level else [m])]
    kinds = "fiu" if variables is None else "fiub"  # unasked, a mask is no quantity
    reasons = {m.label: reason for m in picked if (reason := _unfit(ds, m, roles, kinds))}
    chosen = [m for m in picked if m.label not in reasons]
    if reasons and (variables is not None or not chosen):
        raise InputError("; ".join(list(reasons.values())[:3]))
    if reasons:
        # What could have been used, one level or member at a time, must not go unnoticed.
        usable = [r for r in reasons.values() if _EXTRA in r]
        logger.log(
            logging.WARNING if usable else logging.INFO, "left out: %s", "; ".join(reasons.values())
        )
    if len({m.canonical for m in chosen}) < len(chosen):
        raise InputError(
            f"several of {quoted(m.label for m in chosen)} are one variable: ask for it by "
            "variables=[...]"
        )
    return chosen


def _by_level(ds: xr.Dataset, m: Meant) -> list[Meant]:
    """Take a variable apart by its pressure levels, where it has several."""
    levels = levels_of(ds, m.name) if m.levels is None else None
    if levels is None or levels.dim is None or len(levels.values) < 2:
        return [m]
    return [
        Meant(m.name, level_name(m.canonical, float(level)), levels, position)
        for position, level in enumerate(levels.values)
    ]


def _unfit(ds: xr.Dataset, m: Meant, roles: Mapping[Hashable, str], kinds: str) -> str | None:
    """Why a variable, which must be of one of these kinds of types, cannot be used, or None."""
    variable, name = m.of(ds), m.label
    here = [roles[d] for d in variable.dims if d in roles]
    geographic = {LAT, LON} <= set(here)
    dims = f"'{name}' has dimensions ({', '.join(map(str, variable.dims))})"
    if lost := [key for key in unread(variable.encoding) if key in PACKING[:2]]:
        shown = str(variable.encoding[lost[0]])[:60]
        return (
            f"'{name}' has {lost[0]} {shown!r} in its file, expected a number: open the file with "
            "stforecast.datasets.open_grid, or with mask_and_scale=False; then it is read as one"
        )
    if variable.dtype.kind not in kinds:
        return f"'{name}' holds {variable.dtype} values, expected numbers"
    for role in here:
        if here.count(role) > 1:
            return f"{dims}: more than one of them looks like {role}"
    curved = [
        c
        for c, coord in ds.variables.items()
        if coord.ndim >= 2 and role_of(c, coord) == LAT
        if all(d in variable.dims or ds.sizes[d] == 1 for d in coord.dims)
    ]
    if curved and not geographic:
        return (
            f"'{name}' is on a curvilinear grid (its latitude '{curved[0]}' is "
            f"{ds[curved[0]].ndim}-D), expected 1-D "
            "latitude and longitude, for area weights and maps: regrid it, or drop the 2-D "
            "coordinates with ds.drop_vars to treat its points as pixels"
        )
    if not (geographic or {Y, X} <= set(here)):
        return f"{dims}, expected latitude and longitude (or y and x) among them"
    if TIME not in here and scalar(ds, TIME) is None:
        since = [d for d in variable.dims if roles.get(d) == LEAD and role_of(d) == TIME]
        if since:
            return (
                f"{dims}: '{since[0]}' holds timedelta64, the time since a start, expected dates: "
                f"ds.assign_coords({since[0]}=start + ds['{since[0]}'])"
            )
        return (
            f"{dims}: it has no time dimension. Give it one with "
            "ds.expand_dims(time=[np.datetime64('2000-01-01')])"
        )
    for dim in variable.dims:
        # Beside latitude and longitude, `height` and the like are levels.
        extra = dim not in roles or (geographic and roles[dim] in (Y, X))
        if extra and ds.sizes[dim] != 1:
            first = f"sel({dim}={ds[dim].values[0]})" if dim in ds.coords else f"isel({dim}=0)"
            levels, asked = levels_of(ds, m.name), ""
            if levels is not None and levels.dim == dim:
                one = level_name(canonical_name(str(name)), float(levels.values[0]))
                asked = f", or ask for a level by its name, as '{one}' (it has {levels.text} hPa)"
            elif str(dim).lower() in MEMBERS.split():
                asked = f", or take the mean of the members with ds.mean('{dim}')"
            return (
                f"'{name}' has {_EXTRA} '{dim}' of size {ds.sizes[dim]}: select one "
                f"with ds.{first}{asked}"
            )
    return None
