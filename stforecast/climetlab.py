"""Data sets for climetlab, which finds them by its entry points (group ``climetlab.datasets``).

::

    import climetlab
    climetlab.load_dataset("stforecast-sample").to_xarray()
    climetlab.load_dataset("weatherbench-t2m", path="DIR").to_xarray()

:func:`stforecast.predict` and :func:`stforecast.datasets.open_weatherbench` take what these give,
and any other source of climetlab's, as it is. Both data sets are read from disk, without a network.

climetlab itself looks for a name that it does not know in a catalogue on the network, and where
there is none tries again 500 times, every 120 s. :func:`load_dataset` does not.

Needs the extra ``climetlab``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

try:
    from climetlab import Dataset
except ImportError as error:  # the name of this module is taken: say which package is meant
    raise ImportError(
        "stforecast.climetlab needs the package climetlab: pip install 'stforecast[climetlab]'"
    ) from error

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["Sample", "WeatherBenchT2m", "load_dataset"]


class _Opened(Dataset):
    """A data set that one of this library's functions opens."""

    documentation = "https://github.com/stforecast/stforecast#readme"

    def to_xarray(self, **options: Any) -> xr.Dataset:
        """Open it: canonical and lazy."""
        raise NotImplementedError

    def to_numpy(self, **options: Any) -> np.ndarray:
        """Read the values of the only variable, or of all along a first axis."""
        ds = self.to_xarray(**options)
        arrays = ds.to_dataarray("variable").to_numpy()
        return arrays[0] if len(ds.data_vars) == 1 else arrays

    def __len__(self) -> int:
        return int(self.to_xarray().sizes["time"])

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {self.name}>"


class Sample(_Opened):
    """``stforecast-sample``: hourly 2 m temperature of a general circulation model.

    Parameters
    ----------
    **options
        Of :func:`stforecast.datasets.open_sample`.
    """

    name = "stforecast-sample"
    home_page = "https://github.com/stforecast/stforecast"
    licence = "CC0-1.0"
    citation = "Simulated by PlaSim for stforecast; not observed"

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    def to_xarray(self, **options: Any) -> xr.Dataset:
        """As :func:`stforecast.datasets.open_sample`, whose options it takes."""
        from .datasets.weather import open_sample

        return open_sample(**self._options | options)


class WeatherBenchT2m(_Opened):
    """``weatherbench-t2m``: WeatherBench's 2 m temperature, from files or a store that you have.

    Parameters
    ----------
    path : path-like or sequence of these
        As of :func:`stforecast.datasets.open_weatherbench`.
    variables : str or sequence of str
        Others, or more.
    **options
        Of :func:`stforecast.datasets.open_weatherbench`.

    Raises
    ------
    InputError
        Without `path`: nothing is downloaded.
    """

    name = "weatherbench-t2m"
    home_page = "https://github.com/pangeo-data/WeatherBench"
    licence = "CC-BY-4.0; contains modified Copernicus Climate Change Service information"
    citation = (
        "Rasp et al. 2020, doi:10.1029/2020MS002203; Hersbach et al. 2020, doi:10.1002/qj.3803"
    )

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        variables: str | Sequence[str] = "2m_temperature",
        **options: Any,
    ) -> None:
        super().__init__()
        if path is None:
            raise InputError(
                'weatherbench-t2m is read from files that you have: load_dataset("weatherbench-t2m"'
                ", path=DIR), with 2m_temperature_2013_5.625deg.nc and so on, or a zarr store"
            )
        self._options: dict[str, Any] = {"path": path, "variables": variables, **options}

    def to_xarray(self, **options: Any) -> xr.Dataset:
        """As :func:`stforecast.datasets.open_weatherbench`, whose options it takes."""
        from .datasets.weather import open_weatherbench

        return open_weatherbench(**self._options | options)


def load_dataset(name: str, *args: Any, **options: Any) -> Any:
    """Load a data set by its name, as ``climetlab.load_dataset``, but look in no catalogue online.

    Parameters
    ----------
    name : str
        Of a data set that is installed.
    *args, **options
        What the data set takes.

    Returns
    -------
    climetlab.Dataset
        With ``to_xarray()``. What a data set of another package downloads, and how often it tries,
        is its own affair.

    Raises
    ------
    InputError
        If no installed data set has this name; climetlab's own settings stay as they are.
    """
    import climetlab
    from climetlab.core.plugins import load_plugins

    with climetlab.settings.temporary("datasets-catalogs-urls", []):
        try:
            return climetlab.load_dataset(name, *args, **options)
        except NameError as error:
            if "Cannot find dataset" not in str(error):
                raise
            known = sorted(load_plugins("dataset"))
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"no installed data set of climetlab is called {name!r}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + f"; the names of plugins are: {', '.join(known) or 'none'}"
            ) from error
