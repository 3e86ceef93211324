"""Make the embedded sample, ``stforecast/datasets/sample/plasim_t2m.zarr``.

Reads hourly 2 m temperature in WeatherBench 1's file layout (one netCDF a year), keeps one year
for training and later blocks, spread over the seasons, for validation and test, and writes them as
one zarr v3 store::

    python scripts/make_sample.py --source ../shared/data/plasim_t2m

The numbers are packed as int16 in steps of 0.02 K, which is the source's own step: nothing is lost.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

TARGET = Path(__file__).parents[1] / "stforecast" / "datasets" / "sample" / "plasim_t2m.zarr"
MAX_BYTES = 16_000_000
SCALE, OFFSET, FILL = 0.02, 270.0, -32768
# Time runs fastest in a stored chunk: neighbouring hours differ by little, so zstd finds more to
# save (15.4 MB) than with the map innermost (22 MB). One Blosc block a chunk saves another 4%.
CHUNK_STEPS = 2190
BLOCK_BYTES = 2**24

PERIODS = {
    "train_period": ["2013-01-01T00/2013-12-31T23"],
    "validation_period": [f"2017-{m:02d}-10T00/2017-{m:02d}-15T23" for m in (2, 5, 8, 11)],
    "test_period": [f"2018-{m:02d}-15T00/2018-{m:02d}-21T23" for m in (1, 4, 7, 10)],
}


def read(source: Path) -> xr.DataArray:
    """Read the periods as one array (time, latitude, longitude) in K, times ascending."""
    blocks = []
    for period in (p for periods in PERIODS.values() for p in periods):
        start, end = period.split("/")
        with xr.open_dataset(source / f"2m_temperature_{start[:4]}_5.625deg.nc") as ds:
            blocks.append(ds["t2m"].sel(time=slice(start, end)).load())
        expected = (np.datetime64(end, "h") - np.datetime64(start, "h")).astype(int) + 1
        if blocks[-1].sizes["time"] != expected:
            found = blocks[-1].sizes["time"]
            raise SystemExit(f"{period}: {source} has {found} of {expected} hours")
    array = xr.concat(blocks, "time", join="exact").rename(lat="latitude", lon="longitude")
    if not (array.indexes["time"].is_monotonic_increasing and array.indexes["time"].is_unique):
        raise SystemExit("the periods must follow each other without overlap")
    if not bool(np.isfinite(array).all()):
        raise SystemExit(f"{source} holds missing values; the sample must have none")
    return array.transpose("time", "latitude", "longitude")


def write(array: xr.DataArray, source_attrs: dict[str, str], target: Path) -> None:
    """Write `array` (K) to `target` as a zarr v3 group with CF attributes, whole or not at all."""
    import zarr
    from zarr.codecs import BloscCodec, TransposeCodec

    packed = np.rint((array.values.astype("f8") - OFFSET) / SCALE)
    if np.abs(packed).max() >= -FILL:
        raise SystemExit("temperatures do not fit into int16 with this scale and offset")
    steps = array.sizes["time"]
    hours = (array["time"].values - np.datetime64("2013-01-01")) / np.timedelta64(1, "h")

    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    group = zarr.create_group(
        partial,
        zarr_format=3,
        attributes={
            "Conventions": "CF-1.11",
            "title": "Sample of simulated hourly global 2 m temperature, 32 x 64 Gaussian grid",
            "comment": (
                "SIMULATED by a general circulation model (PlaSim), not observed. Dates label "
                "model years; they do not correspond to the weather of those years."
            ),
            "source": source_attrs["source"],
            "license": "CC0-1.0",
            "history": (
                "scripts/make_sample.py: periods cut from the yearly files and joined; time has "
                f"real gaps between blocks; packed as int16, {SCALE} K (the source's own step)"
            ),
            **{name: ";".join(periods) for name, periods in PERIODS.items()},
        },
    )
    group.create_array(
        "2m_temperature",
        data=packed.astype("<i2"),
        chunks=(CHUNK_STEPS, *array.shape[1:]),
        filters=[TransposeCodec(order=(1, 2, 0))],
        compressors=[
            BloscCodec(typesize=2, cname="zstd", clevel=9, shuffle="shuffle", blocksize=BLOCK_BYTES)
        ],
        fill_value=FILL,
        dimension_names=[str(d) for d in array.dims],
        attributes={
            "standard_name": "air_temperature",
            "long_name": "2 metre temperature (simulated)",
            "units": "K",
            "scale_factor": SCALE,
            "add_offset": OFFSET,
            "_FillValue": FILL,  # a reader that lets a lost chunk pass shall see NaN
            "cell_methods": "time: point",
        },
    )
    coordinates: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "time": (
            hours.astype("<i4"),
            {
                "standard_name": "time",
                "units": "hours since 2013-01-01 00:00:00",
                "calendar": "proleptic_gregorian",
                "axis": "T",
            },
        ),
        "latitude": (
            array["latitude"].values,
            {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
        ),
        "longitude": (
            array["longitude"].values,
            {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
        ),
    }
    for name, (values, attributes) in coordinates.items():
        group.create_array(
            name,
            data=values,
            chunks=(max(len(values), 1),),
            dimension_names=(name,),
            attributes=attributes,
        )
    with warnings.catch_warnings():
        # Not yet in the zarr 3 specification, but without it plain ``xr.open_zarr`` warns.
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata")
        zarr.consolidate_metadata(partial, zarr_format=3)
    size = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    if size > MAX_BYTES:
        raise SystemExit(f"the sample takes {size / 1e6:.2f} MB, more than {MAX_BYTES / 1e6:.0f}")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    print(f"{target}: {steps} hours, {size / 1e6:.2f} MB")


def main(argv: Sequence[str] | None = None) -> None:
    """Read options and make the sample."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--source", type=Path, required=True, help="directory of 2m_temperature_YYYY_5.625deg.nc"
    )
    parser.add_argument("--output", type=Path, default=TARGET, help="zarr store to write")
    options = parser.parse_args(argv)
    first = PERIODS["train_period"][0][:4]
    with xr.open_dataset(options.source / f"2m_temperature_{first}_5.625deg.nc") as ds:
        attrs = dict(ds.attrs)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write(read(options.source), attrs, options.output)


if __name__ == "__main__":
    main()
