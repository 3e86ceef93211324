"""Files whose packing xarray cannot read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from stforecast import datasets
from stforecast.conventions import canonicalize
from stforecast.errors import InputError
from stforecast.testing import make_weather

NAME = "2m_temperature"


def written(tmp_path, kind, attrs, values=None):
    ds = make_weather(12, shape=(6, 8))
    right = ds[NAME].values
    data = right if values is None else values(right)
    ds[NAME] = (ds[NAME].dims, data, {"units": "K"} | attrs)
    path = tmp_path / f"text.{kind}"
    ds.to_netcdf(path) if kind == "nc" else ds.to_zarr(path, consolidated=False)
    return path, right


def opened(path, **options):
    if path.suffix == ".zarr":
        options |= {"engine": "zarr", "consolidated": False}
    return xr.open_dataset(path, **options)


def packed(values):
    return np.rint((values.astype("f8") - 273.15) / 0.01).astype("i2")


@pytest.mark.parametrize("kind", ["nc", "zarr"])
@pytest.mark.parametrize(
    ("attrs", "values"),
    [
        ({"scale_factor": "1.0", "add_offset": "0.0"}, None),
        ({"scale_factor": "0.01", "add_offset": "273.15"}, packed),
        ({"scale_factor": "0.01", "add_offset": 273.15}, packed),
        ({"scale_factor": [0.01], "add_offset": [273.15]}, packed),
        ({"scale_factor": ["0.01"], "add_offset": ["273.15"]}, packed),
    ],
)
def test_a_packing_in_text_is_read_as_numbers(tmp_path, kind, attrs, values):
    path, right = written(tmp_path, kind, attrs, values)
    got = datasets.open_grid(path)
    np.testing.assert_allclose(got[NAME], right, atol=0.0051)
    assert got.sizes["time"] == 12
    with opened(path, mask_and_scale=False) as raw:
        np.testing.assert_allclose(canonicalize(raw)[0][NAME], right, atol=0.0051)


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_a_missing_value_in_text(tmp_path, kind):
    def failed(values):
        return np.where(np.arange(12)[:, None, None] == 3, np.float32(-9999), values)

    path, _ = written(tmp_path, kind, {"missing_value": "-9999"}, failed)
    assert int(np.isnan(datasets.open_grid(path)[NAME]).sum()) == 48
    with opened(path) as ds:
        assert int(np.isnan(canonicalize(ds)[0][NAME]).sum()) == 48


@pytest.mark.parametrize("kind", ["nc", "zarr"])
@pytest.mark.parametrize("scale", ["abc", [0.01, 0.02], "0"])
def test_a_packing_that_is_none_is_named(tmp_path, kind, scale):
    path, _ = written(tmp_path, kind, {"scale_factor": scale}, packed)
    with pytest.raises(
        InputError, match=f"text.{kind}.*'2m_temperature' has scale_factor"
    ) as error:
        datasets.open_grid(path)
    assert "damaged" not in str(error.value)


def test_what_xarray_has_failed_to_decode_is_named(tmp_path):
    path, _ = written(tmp_path, "nc", {"scale_factor": "0.01"}, packed)
    with (
        xr.open_dataset(path) as ds,
        pytest.raises(InputError, match=r"scale_factor '0\.01'.*mask"),
    ):
        canonicalize(ds)
