"""Where the data sets of the benchmarks are, and downloads of those with a stable address."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from .downloads import Progress, checksum, fetch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """One data set.

    Parameters
    ----------
    about, licence, size : str
        What it is, under which terms, and roughly how large.
    reader : str
        The function that opens what was downloaded.
    files : mapping
        Name of each file: its URL, and its checksum (see :func:`fetch`) or None where the owners
        publish none.
    by_hand : str
        Where to get it where it has no address to download from.
    """

    about: str
    licence: str
    size: str
    reader: str
    files: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    by_hand: str = ""


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_KTH = "https://www.csc.kth.se/cvap/actions/"
_WEATHERBENCH = "https://dataserv.ub.tum.de/s/m1524895/download?path=%2F5.625deg"

ADDRESSES = {
    "mnist": Address(
        "handwritten digits, which Moving MNIST is made of",
        "CC BY-SA 3.0",
        "11 MB",
        "open_moving_mnist",
        {
            f"{name}.gz": (f"{_MNIST}{name}.gz", sha256)
            for name, sha256 in {
                "train-images-idx3-ubyte": (
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
                ),
                "train-labels-idx1-ubyte": (
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
                ),
                "t10k-images-idx3-ubyte": (
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
                ),
                "t10k-labels-idx1-ubyte": (
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
                ),
            }.items()
        },
    ),
    "moving_mnist_test": Address(
        "the 10,000 test sequences of Moving MNIST",
        "not stated by its owners; the digits: CC BY-SA 3.0",
        "820 MB",
        "open_moving_mnist",
        {
            "mnist_test_seq.npy": (
                "http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy",
                "md5:be083ec986bfe91a449d63653c411eb2",
            )
        },
    ),
    "kth": Address(
        "KTH human actions, videos",
        "non-commercial use, with citation",
        "1.1 GB",
        "open_kth",
        {
            name: (f"{_KTH}{name}", None)
            for name in (
                "00sequences.txt",
                "walking.zip",
                "jogging.zip",
                "running.zip",
                "boxing.zip",
                "handwaving.zip",
                "handclapping.zip",
            )
        },
    ),
    "weatherbench_t2m": Address(
        "WeatherBench 1: hourly 2 m temperature, ERA5, 1979-2018, 5.625 degrees",
        "CC BY 4.0; contains Copernicus Climate Change Service information",
        "about 2 GB",
        "open_weatherbench",
        {
            "2m_temperature_5.625deg.zip": (
                f"{_WEATHERBENCH}%2F2m_temperature&files=2m_temperature_5.625deg.zip",
                None,
            )
        },
    ),
    "weatherbench2": Address(
        "WeatherBench 2: ERA5 in the cloud",
        "CC BY 4.0; contains Copernicus Climate Change Service information",
        "as much as you read",
        "open_weatherbench",
        by_hand="there is nothing to download: open_weatherbench('gs://weatherbench2/datasets/era5/"
        "1959-2022-6h-64x32_equiangular_conservative.zarr'), with the extra 'cloud'",
    ),
    "era5": Address(
        "ERA5 from the Climate Data Store",
        "Copernicus licence",
        "as much as you ask for",
        "open_era5",
        by_hand="ask for it with your own account at https://cds.climate.copernicus.eu/datasets/"
        "reanalysis-era5-single-levels, as netCDF or GRIB",
    ),
    "ncep": Address(
        "NCEP/NCAR reanalysis 1, 6-hourly",
        "no restrictions",
        "about 50 MB a year and variable",
        "open_ncep",
        by_hand="take the years and variables that you want from "
        "https://psl.noaa.gov/data/gridded/data.ncep.reanalysis.html",
    ),
    "taxibj": Address(
        "TaxiBJ: taxi flows in Beijing",
        "research use",
        "0.5 GB",
        "open_taxibj",
        by_hand="its owners give the address of BJ13_M32x32_T30_InOut.h5 to BJ16_... at "
        "https://github.com/TolicWang/DeepST/tree/master/data/TaxiBJ",
    ),
    "kitti": Address(
        "KITTI raw drives",
        "CC BY-NC-SA 3.0",
        "165 GB",
        "open_kitti",
        by_hand="register at https://www.cvlibs.net/datasets/kitti/raw_data.php and take the "
        "synchronised drives of the categories city, residential and road; or PredNet's hickle "
        "files by way of https://github.com/coxlab/prednet",
    ),
    "caltech": Address(
        "Caltech Pedestrian, sequences",
        "see its record",
        "11 GB",
        "open_caltech",
        by_hand="take the sets from https://data.caltech.edu/records/f6rph-90m20",
    ),
    "robonet": Address(
        "RoboNet",
        "CC BY 4.0",
        "36 GB",
        "open_robonet",
        by_hand="follow https://github.com/SudeepDasari/RoboNet/wiki/Getting-Started",
    ),
    "bridgedata": Address(
        "BridgeData V2",
        "CC BY 4.0",
        "411 GB",
        "open_bridgedata",
        by_hand="take the trajectories from https://rail-berkeley.github.io/bridgedata/",
    ),
}


def download(
    name: str,
    target: str | os.PathLike[str],
    *,
    timeout: float = 60.0,
    progress: Progress | None = None,
) -> Path:
    """Download a data set that has a public address.

    Parameters
    ----------
    name : str
        ``mnist``, ``moving_mnist_test``, ``kth``, ``weatherbench_t2m``; of others the message says
        where to get them.
    target : path-like
        Directory for its files. What is there already is verified and kept.
    timeout, progress
        As in :func:`fetch`.

    Returns
    -------
    Path
        `target`, for the data set's adapter. Where the owners publish no checksum, a warning says
        that the file is not verified, and its SHA-256 goes to ``SHA256SUMS`` there (the file is
        held against it next time; ``sha256sum -c`` reads it).

    Raises
    ------
    InputError
        If there is no such data set, or it must be got by hand; else as :func:`fetch`.
    """
    if name not in ADDRESSES:
        near = difflib.get_close_matches(name, ADDRESSES, n=1)
        raise InputError(
            f"no data set '{name}', there are {', '.join(ADDRESSES)}"
            + (f" (did you mean '{near[0]}'?)" if near else "")
        )
    address, directory = ADDRESSES[name], Path(target).expanduser()
    if not address.files:
        raise InputError(
            f"{address.about} ({address.licence}, {address.size}) has no address to download from: "
            f"{address.by_hand}. {address.reader}() then opens it"
        )
    logger.info("%s: %s, %s", name, address.licence, address.size)
    for file, (url, known) in address.files.items():
        recorded = _recorded(directory).get(file)
        path = fetch(url, directory / file, sha256=known or recorded, timeout=timeout,
                     progress=progress)  # fmt: skip
        if known is None and recorded is None:
            with open(directory / _SUMS, "a") as sums:
                sums.write(f"{checksum(path)}  {file}\n")
    return directory


_SUMS = "SHA256SUMS"


def _recorded(directory: Path) -> dict[str, str]:
    """Checksums that earlier downloads were found to have."""
    try:
        lines = (directory / _SUMS).read_text().splitlines()
    except OSError:
        return {}
    return {name.strip(): value for value, _, name in (line.partition(" ") for line in lines)}
