"""Files that are damaged, or are not there."""

from __future__ import annotations

import numpy as np
import pytest
from years_of_weather import T2M, weather, write

from stforecast.datasets.weather import open_weatherbench
from stforecast.errors import InputError


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_64BIT", "NETCDF3_CLASSIC"])
def test_truncated_netcdf_is_named(tmp_path, format, keep):
    """The netCDF library reads zeros past the end of a truncated netCDF 3 file."""
    write(weather("2013-01-01", 30), tmp_path / "a.nc", format=format)
    path = write(weather("2014-01-01", 30), tmp_path / "b.nc", format=format)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match=r"b\.nc: .*(truncated|damaged).*ownload it again"):
        open_weatherbench(tmp_path)


@pytest.mark.parametrize(
    "format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]
)
@pytest.mark.parametrize("unlimited", [[], ["time"]])
@pytest.mark.parametrize("second", [False, True])
def test_whole_netcdf3_is_not_taken_for_truncated(tmp_path, format, unlimited, second):
    import netCDF4

    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=format) as nc:
        for name, size in (("time", None if unlimited else 5), ("lat", 3), ("lon", 5)):
            nc.createDimension(name, size)
        for name, values in (("lat", [-10, 0, 10]), ("lon", [0, 1, 2, 3, 4])):
            nc.createVariable(name, "f4", (name,))[:] = values
        nc.createVariable("time", "i4", ("time",)).setncattr("units", "hours since 2013-01-01")
        nc["time"][:] = np.arange(5)
        variable = nc.createVariable("t2m", "i2", ("time", "lat", "lon"))  # 30 bytes a step
        variable.setncatts({"units": "K", "scale_factor": 0.01, "add_offset": 270.0})
        variable[:] = 280 + np.arange(75).reshape(5, 3, 5) / 100
        if second:
            nc.createVariable("flag", "i1", ("time", "lon"))[:] = 1
    ds = open_weatherbench(tmp_path / "a.nc")
    np.testing.assert_allclose(ds[T2M][-1, -1], 280 + np.arange(70, 75) / 100, atol=1e-4)
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "b.nc").write_bytes(whole[:-8])
    with pytest.raises(InputError, match=rf"truncated netCDF 3 file, {len(whole) - 8} bytes of"):
        open_weatherbench(tmp_path / "b.nc")


def test_what_is_no_netcdf_is_named(tmp_path):
    (tmp_path / "page.nc").write_text("<html>404 Not Found</html>")
    with pytest.raises(InputError, match=r"page\.nc: cannot be opened .*neither netCDF nor zarr"):
        open_weatherbench(tmp_path)


def test_file_without_times(tmp_path):
    write(weather("2013-01-01", 0), tmp_path / "a.nc", packed=False)
    with pytest.raises(InputError, match=r"a\.nc: it has no times"):
        open_weatherbench(tmp_path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "found nothing, it is empty"),
        (["notes.txt", "x.csv"], "found notes.txt, x.csv"),
        (["a.zip"], "Give a zip by its name: a.zip"),
    ],
)
def test_directory_without_data(tmp_path, contents, message):
    for name in contents:
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=f"no netCDF file .*{message}"):
        open_weatherbench(tmp_path)


def test_paths_that_do_not_exist(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or directory"):
        open_weatherbench(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no file matches"):
        open_weatherbench(str(tmp_path / "*.nc"))
    with pytest.raises(InputError, match="asks for nothing"):
        open_weatherbench(tmp_path, [])
