"""Sources of other libraries, each in a process of its own: no order of loading may crash it."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import xarray as xr
from helpers import ROOT

from stforecast.baselines import Persistence
from stforecast.datasets import open_grid
from stforecast.errors import InputError
from stforecast.forecasting import predict
from stforecast.package import load_proj
from stforecast.plots import plot_map
from stforecast.task import Task
from stforecast.testing import write_cds

LIMIT = 120  # s
LIBRARIES = {
    "earthkit": "earthkit.data",
    "climetlab": "climetlab",
    "cfgrib": "cfgrib",
    "xarray": "xarray",
}
FORMATS = ("netCDF", "GRIB", "zarr")
#: How each opens a file. cfgrib reads GRIB only: of other formats it is loaded first.
OPEN = {
    "earthkit": 'earthkit.data.from_source("zarr" if form == "zarr" else "file", path)',
    "climetlab": 'climetlab.load_source("zarr" if form == "zarr" else "file", path)',
    "cfgrib": 'xarray.open_dataset(path, engine="cfgrib" if form == "GRIB" else None)',
    "xarray": "xarray.open_dataset(path)",
}
#: ``source`` is what the library gives. A network forecasts, so that torch is in the process too.
USE = {
    "predict": """
import stforecast, torch
class Last(torch.nn.Module):
    def forward(self, x):
        return x[:, -1:].repeat(1, 2, 1, 1, 1)
task = stforecast.Task("t2m", 3, 2)
found = stforecast.predict(source, stforecast.Forecaster(Last(), task))
found = float(found[list(found)[0]][0, -1].mean())
""",
    "map": """
import stforecast
from stforecast.plots.layout import save
if hasattr(source, "to_xarray"):
    data = stforecast.datasets.open_grid(source, "t2m")["2m_temperature"]
else:
    data = source["t2m"]
save(stforecast.plot_map(data[-1]), "map.png")
found = float(data[-1].mean())
""",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same 24 hours of 2 m temperature, and the mean of the last map."""
    pytest.importorskip("eccodes")
    root = tmp_path_factory.mktemp("files")
    grib = write_cds(root, layout="grib", steps=24)
    netcdf = write_cds(root, layout="new", steps=24, preliminary=0)
    with xr.open_dataset(netcdf, engine="netcdf4") as ds:
        mean = float(ds["t2m"][-1].mean())
        ds.drop_vars("expver").drop_encoding().to_zarr(
            root / "t2m.zarr", zarr_format=2, consolidated=True
        )
    return {"netCDF": netcdf, "GRIB": grib, "zarr": root / "t2m.zarr", "mean": mean}


def run_alone(code, directory):
    """Run code in a fresh process; return what it printed last. It must end with exit code 0."""
    environment = os.environ | {"HOME": str(directory), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=directory, env=environment, timeout=LIMIT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout.split()[-1]


def check(library, form, use, files, directory):
    """Open, forecast or draw in a process where `library` is loaded first."""
    pytest.importorskip("cartopy")
    pytest.importorskip(LIBRARIES[library], reason=f"needs the package {LIBRARIES[library]}")
    code = f"""
import {LIBRARIES[library]}
import xarray
path, form = {str(files[form])!r}, {form!r}
source = {OPEN[library]}
{USE[use]}
print(found)
"""
    assert float(run_alone(code, directory)) == pytest.approx(files["mean"], abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("use", USE)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_and_format(library, form, use, files, tmp_path):
    check(library, form, use, files, tmp_path)


def test_grib_of_cfgrib_on_a_map(files, tmp_path):
    check("cfgrib", "GRIB", "map", files, tmp_path)


class Fields:
    """A source whose fields do not fit into one Dataset, as a file of two grids."""

    def to_xarray(self):
        raise ValueError("Fields do not have the same grid geometry:\n field 0")


@pytest.mark.parametrize(
    "use", [lambda f: predict(f, Persistence(Task("t2m", 3, 2))), open_grid, plot_map]
)
def test_fields_that_do_not_fit_together_are_refused(use):
    with pytest.raises(InputError, match=r"Fields.to_xarray\(\) fails .* geometry: field 0.*sel"):
        use(Fields())


def test_pyproj_looks_in_its_own_libraries_first_where_eccodes_is_loaded(tmp_path, monkeypatch):
    deep = getattr(os, "RTLD_DEEPBIND", None)
    if deep is None:
        pytest.skip("only glibc lets one library's functions stand in for another's")
    (tmp_path / "pyproj.py").write_text("import sys\nflags = sys.getdlopenflags()\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.getdlopenflags()
    for eccodes in (False, True):
        monkeypatch.delitem(sys.modules, "pyproj", raising=False)
        if eccodes:
            monkeypatch.setitem(sys.modules, "gribapi", ModuleType("gribapi"))
        else:
            monkeypatch.delitem(sys.modules, "gribapi", raising=False)
        load_proj()
        assert bool(sys.modules["pyproj"].flags & deep) is eccodes
        assert sys.getdlopenflags() == before


def test_a_program_that_has_loaded_eccodes_and_then_pyproj_is_refused_maps(files, monkeypatch):
    pytest.importorskip("cartopy")
    field = xr.open_dataset(files["netCDF"], engine="netcdf4")["t2m"][0]
    proj = SimpleNamespace(__proj_version__="9.8.1", __proj_compiled_version__="9.5.1")
    monkeypatch.setitem(sys.modules, "eckitlib", ModuleType("eckitlib"))
    monkeypatch.setitem(sys.modules, "pyproj", proj)
    with pytest.raises(
        InputError, match=r"PROJ \(9.8.1\).*\(9.5.1\).*'import pyproj'.*eccodes<2.48"
    ):
        plot_map(field)
