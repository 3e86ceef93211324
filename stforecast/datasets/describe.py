"""What a path is, what it holds, and which adapter reads it."""

from __future__ import annotations

import inspect
import logging
import math
import os
import re
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..conventions.axes import TIME
from ..conventions.times import time_gaps, time_step
from ..errors import InputError
from .archives import extract
from .backends import is_remote, is_zarr, open_lazy
from .headers import kind_of
from .joining import some
from .limits import open_zip
from .periods import when, years_in_ranges

logger = logging.getLogger(__name__)

#: Adapters' modules by name, most particular first; each has ``recognise(path)``.
ADAPTERS = {
    name: f"{__package__}.{name}"
    for name in ("prepare", "flow", "moving_mnist", "kth", "kitti_caltech", "robot", "weather")
}
_MOST_FILES = 100_000  # of a directory, to count
_SAMPLE_STEPS = 8
_SAMPLE_BYTES = 64 * 2**20  # of float32
_ZIP_BYTES = 256 * 2**20  # of a zip that is extracted to a temporary directory for a look

# Who would read a file of this name, asked for what is wrong with one that nobody recognises.
_LIKELY = (
    (r"BJ\d\d_.*\.h5|.*\.npz", "open_taxibj"),
    (r".*idx\d-ubyte(\.gz)?|.*\.npy", "open_moving_mnist"),
    (r".*\.avi", "open_kth"),
    (r".*\.hkl", "open_kitti"),
    (r".*\.seq", "open_caltech"),
    (r".*\.hdf5", "open_robonet"),
    (r".*\.(nc|nc4|cdf|netcdf|grib2?|grb2?|zip)|zarr\.json|\.z(array|group|metadata)", "open_grid"),
)


@dataclass(frozen=True)
class Description:
    """What :func:`describe` found; ``print`` it.

    Parameters
    ----------
    path : Path or str
        The latter of a URL.
    kind : str
        What it is as a file or directory.
    adapter : str or None
        The function of :mod:`stforecast.datasets` that reads it.
    reason : str
        Why that one; or why none does.
    files, size : int
        Files and their bytes on disk.
    variables : mapping
        Names and units.
    dims : mapping
        Sizes, time steps included.
    period : (str, str) or None
        First and last time; None for clips, whose times count from nothing.
    years : str
        Years that data lie in: ``"1979-2012, 2017"``.
    timestep : str or None
    levels : tuple of str
        Variables on several levels, and these: they are opened by a level, as ``"z500"``.
    clips : str or None
        Number of clips, and their lengths.
    gaps : tuple
        ``(last before, first after, missing steps)`` of each, in order of time; not between clips.
    nan_share : mapping
        Share of NaN in a sample of each variable.
    sampled : str
        What that sample was.
    memory : int
        Bytes of everything as float32.
    problems : tuple of str
        What is wrong with it.
    """

    path: Path | str
    kind: str
    adapter: str | None = None
    reason: str = ""
    files: int = 0
    size: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    period: tuple[str, str] | None = None
    years: str = ""
    timestep: str | None = None
    levels: tuple[str, ...] = ()
    clips: str | None = None
    gaps: tuple[tuple[str, str, int], ...] = ()
    nan_share: Mapping[str, float] = field(default_factory=dict)
    sampled: str = ""
    memory: int = 0
    problems: tuple[str, ...] = ()

    def open(self, **options: Any) -> xr.Dataset:
        """Open the path with its adapter and these options.

        Raises
        ------
        InputError
            If no adapter reads it, or the adapter refuses it.
        """
        if self.adapter is None:
            raise InputError(f"{self.path}: {self.reason}")
        return _opener(self.adapter)(self.path, **options)

    def __str__(self) -> str:
        missing = sum(n for _, _, n in self.gaps)
        lines = {
            "is": self.kind
            + (f", {self.files} files" if self.files > 1 else "")
            + (f", {_size(self.size)}" if self.files else ""),
            "adapter": f"{self.adapter or 'none'}: {self.reason}",
            "variables": some((f"{n} [{u}]" for n, u in self.variables.items()), 20),
            "levels": some(self.levels, 20),
            "grid": " x ".join(f"{n} {d}" for d, n in self.dims.items() if d != TIME),
            "times": f"{self.dims[TIME]} every {self.timestep}" if self.timestep else "",
            "clips": self.clips,
            "period": self.period and f"{' to '.join(self.period)} (years {self.years})",
            "gaps": self.gaps
            and f"{missing} steps missing: "
            + some((f"{n} between {a} and {b}" for a, b, n in self.gaps), 3),
            "NaN": self.nan_share
            and f"{', '.join(f'{n} {share:.2%}' for n, share in self.nan_share.items())} "
            f"({self.sampled})",
            "in memory": _size(self.memory) if self.memory else "",
        }
        text = [f"{k:>10}  {v}" for k, v in lines.items() if v]
        return "\n".join([str(self.path), *text, *(f"{'problem':>10}  {p}" for p in self.problems)])


def describe(path: str | os.PathLike[str]) -> Description:
    """Say what a path is, what it holds, and which adapter reads it.

    Parameters
    ----------
    path : path or URL
        Anything on disk, or the URL of a zarr store. Nothing is written beside it; of its data only
        a few time steps are read.

    Returns
    -------
    Description
        Of damaged or unknown input too: what is wrong is in ``reason`` and ``problems``, and
        nothing is raised.

    Examples
    --------
    >>> from stforecast.datasets.weather import SAMPLE
    >>> found = describe(SAMPLE)
    >>> found.adapter, found.dims["time"], found.variables
    ('open_weatherbench', 10008, {'2m_temperature': 'K'})
    """
    if is_remote(path):
        path = str(path)
        if not path.startswith("file://"):
            return _remote(path)
        path = path.removeprefix("file://")
    try:
        local = Path(path).expanduser()
    except (TypeError, RuntimeError) as error:  # or no such user's home
        return Description(Path(), "no path", None, f"expected a path, found {path!r} ({error})")
    if not os.fspath(path):
        return Description(local, "no path", None, "expected a path, found an empty text")
    try:
        kind, files, size = _kind(local)
    except (OSError, ValueError) as error:
        return Description(local, "unreadable", None, f"it cannot be looked at ({error})")
    facts: dict[str, Any] = {"files": files, "size": size}
    if not files:
        reason = "there is nothing to read" if local.exists() else "no such file or directory"
        return Description(local, kind, None, reason, **facts)
    adapter = None
    with _quiet():
        try:
            adapter, reason = _recognise(local)
            if adapter is not None:
                facts |= _contents(local, adapter)
        except Exception as error:  # of any library, on any damage: it is what we report
            if adapter is None:
                reason = _told(error)
            else:
                facts["problems"] = (_told(error),)
    return Description(local, kind, adapter, reason, **facts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the adapters from logging what the description says anyway."""
    library = logging.getLogger("stforecast")
    level = library.level
    library.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            library.setLevel(level)


# --- what it is -----------------------------------------------------------------------------------


def _kind(path: Path) -> tuple[str, int, int]:
    """What a path is, and its number of files and bytes."""
    if path.is_file():
        return kind_of(path), 1, path.stat().st_size
    if not path.is_dir():
        return "nothing" if not path.is_symlink() else "a link to nothing", 0, 0
    files, size, suffixes = 0, 0, Counter[str]()
    for directory, below, names in os.walk(path):
        below[:] = [d for d in below if not d.startswith(".")]
        for name in names:
            files += 1
            suffixes["".join(re.findall(r"\.\w+(?:\.gz)?$", name.lower())) or name] += 1
            try:
                size += os.stat(os.path.join(directory, name)).st_size
            except OSError:  # a broken link
                suffixes["(broken links)"] += 1
        if files >= _MOST_FILES:
            break
    if is_zarr(path):
        return f"zarr {'3' if (path / 'zarr.json').is_file() else '2'} store", files, size
    of = some((f"{n} {suffix}" for suffix, n in suffixes.most_common(4)), 3)
    more = f", counted up to {files} files" if files >= _MOST_FILES else ""
    return (f"directory ({of}{more})" if files else "empty directory"), files, size


# --- who reads it ---------------------------------------------------------------------------------


def _recognise(path: Path) -> tuple[str | None, str]:
    """Name of the function that reads a path, and why; or None, and why none does."""
    for name in ADAPTERS:
        try:
            line = import_module(ADAPTERS[name]).recognise(path)
        except Exception as error:  # one adapter's trouble must not hide the others
            logger.debug("%s: %s", name, error)
            continue
        if line:
            opener, _, what = line.partition(": ")
            return opener, what
    example = _example(path)
    for pattern, opener in _LIKELY:
        if example is not None and re.fullmatch(pattern, example.name, re.IGNORECASE):
            try:
                _opener(opener)(path, chunks=None).close()
            except Exception as error:
                return None, f"{opener} would read such files, but {_told(error)}"
            return opener, "it opens with this one"
    return None, "no adapter knows files of this kind and name"


def _example(path: Path) -> Path | None:
    """A file of the most frequent kind."""
    if path.is_file():
        return path
    found: dict[str, list[Path]] = {}
    for count, file in enumerate(path.rglob("*")):
        if file.is_file() and not file.name.startswith("._"):
            found.setdefault(file.suffix, []).append(file)
        if count > 1000:
            break
    return max(found.values(), key=len)[0] if found else None


def _remote(url: str) -> Description:
    """Describe the zarr store behind a URL."""
    adapter, facts = None, {}
    with _quiet():
        try:
            open_lazy(url).close()  # it says what is wrong
            for name in ("prepare", "weather"):
                if adapter is None and (line := import_module(ADAPTERS[name]).recognise(url)):
                    adapter, _, said = line.partition(": ")
            if adapter is None:
                return Description(url, "zarr store", None, "it holds no weather on a grid")
            facts = _contents(url, adapter)
        except Exception as error:
            if adapter is None:
                return Description(url, "URL", None, _told(error))
            facts["problems"] = (_told(error),)
    return Description(url, "zarr store", adapter, said, **facts)


def _opener(name: str) -> Callable[..., xr.Dataset]:
    for module in ADAPTERS.values():
        if hasattr(import_module(module), name):
            return getattr(import_module(module), name)
    raise InputError(f"no adapter is called '{name}'")


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


# --- what it holds --------------------------------------------------------------------------------


def _contents(path: Path | str, adapter: str) -> dict[str, Any]:
    """Open a path, and look at its labels and at a few of its data."""
    opener = _opener(adapter)
    options: dict[str, Any] = {"chunks": None}
    takes = inspect.signature(opener).parameters
    if "split" in takes:
        options["split"] = None  # all of it
    with tempfile.TemporaryDirectory() as scratch:
        # A zip is extracted to open it.
        if "extract_to" in takes and zipfile.is_zipfile(path):
            with open_zip(Path(path)) as archive:
                total = sum(m.file_size for m in archive.infolist())
                members = [m.filename for m in archive.infolist() if not m.is_dir()]
            if total > _ZIP_BYTES:
                held = f"{len(members)} members, {_size(total)}: {some(members)}"
                return {"problems": (f"not looked into, it is large: {held}",)}
            path = extract(path, Path(scratch))
        with opener(path, **options) as ds:
            return _labels(ds) | _sample(ds)


def _labels(ds: xr.Dataset) -> dict[str, Any]:
    times = ds[TIME].to_numpy()
    out: dict[str, Any] = {
        "levels": tuple(ds.encoding.get("on_levels", ())),
        "variables": {str(n): str(v.attrs.get("units", "?")) for n, v in ds.data_vars.items()},
        "dims": {str(d): n for d, n in ds.sizes.items()},
        "memory": sum(4 * v.size for v in ds.data_vars.values()),
    }
    clips = "clip" in ds.coords
    if clips:
        lengths = np.unique(ds["clip"].to_numpy(), return_counts=True)[1]
        frames = f"{lengths.min()}" + (f" to {lengths.max()}" if np.ptp(lengths) else "")
        out["clips"] = f"{len(lengths)} of {frames} frames"
    else:
        out["period"] = when(times[0]), when(times[-1])
        some_times = times[:: max(1, len(times) // 20_000)]
        out["years"] = years_in_ranges(int(when(t)[:4]) for t in some_times)
    if len(times) > 1:
        step = time_step(times)
        out["timestep"] = str(pd.Timedelta(step)).replace("0 days ", "")
        gaps = () if clips else time_gaps(times, step)
        out["gaps"] = tuple((when(a), when(b), n) for a, b, n in gaps)
    return out


def _sample(ds: xr.Dataset) -> dict[str, Any]:
    """Share of NaN in a few time steps."""
    steps = ds.sizes[TIME]
    map_bytes = sum(4 * math.prod(v.shape[1:]) for v in ds.data_vars.values())
    most = max(1, min(_SAMPLE_STEPS, _SAMPLE_BYTES // max(1, map_bytes), steps))
    chosen = np.unique(np.linspace(0, steps - 1, most).astype(int))
    shares, problems = {}, []
    for name, array in ds.data_vars.items():
        try:
            values = array.isel({TIME: chosen}).to_numpy()
            shares[str(name)] = float(np.isnan(values).mean())
        except Exception as error:
            problems.append(_told(error))
    sampled = "in all time steps" if most == steps else f"in {len(chosen)} time steps of {steps}"
    return {"nan_share": shares, "sampled": sampled, "problems": tuple(dict.fromkeys(problems))}


def _size(size: int) -> str:
    power = min(max(size, 1).bit_length() // 10, 4)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{size / 1024**power:.1f} {unit}" if power else f"{size} bytes"
