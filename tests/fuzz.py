"""A fuzzer: small sound files and labels, damaged at random, through the doors of the library.

Run as a script it tries inputs ``first`` to ``stop`` of a seed in one process, with limits on time
and memory, and prints what was neither right nor an InputError. Input i of a seed is always the
same, so a line that is printed can be tried again.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch

from stforecast import SimVPv2, Task, datasets, load
from stforecast.conventions import canonicalize
from stforecast.errors import InputError
from stforecast.forecasting import Forecaster
from stforecast.testing import make_weather
from stforecast.testing.flow import write_taxibj_npz
from stforecast.testing.moving_mnist import write_mnist, write_mnist_test_seq
from stforecast.testing.robot import write_bridgedata, write_robonet
from stforecast.testing.video import write_caltech, write_kitti, write_kth, write_prednet_hkl

SECONDS = 10
ODD = [
    None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e300, float("nan"), float("inf"), 2**31, 2**63,
    2**70, 10**240, "", "x", "\ud800", "nan", "\0", "9" * 300, [], [[]], [0], [-1], [2**40, 2**40],
    ["x"], {}, {"x": 1}, {"id": "pickle"}, {"name": "pickle"}, [{"id": "pickle"}], [None],
]  # fmt: skip


# --- ways to damage -------------------------------------------------------------------------------


def damage(data: bytes, rng: np.random.Generator, head: int = 4096) -> bytes:
    """Change some bytes, mostly near the beginning, where headers are."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        reach = min(len(out), head if rng.random() < 0.8 else len(out))
        at = int(rng.integers(reach))
        kind = rng.integers(6)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == 2:
            number = int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
            form = "<I" if rng.random() < 0.5 else ">I"
            out[at : at + 4] = struct.pack(form, number)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = out[at : at + int(rng.integers(1, 64))]
        else:
            del out[at : at + int(rng.integers(1, 64))]
    return bytes(out)


def damage_json(value, rng: np.random.Generator):
    """Replace, remove or repeat something in nested lists and mappings."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 3)):
        node = value
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not len(keys):
                break
            key = list(keys)[int(rng.integers(len(keys)))]
            if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.8:
                node = node[key]
                continue
            if isinstance(node, dict) and rng.random() < 0.2:
                del node[key]
            else:
                node[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
            break
    return value


def file_at(pattern):
    """A subject's damage: of the bytes of one file."""

    def change(directory, rng):
        files = sorted(p for p in directory.rglob(pattern) if p.is_file())
        file = files[int(rng.integers(len(files)))]
        file.write_bytes(damage(file.read_bytes(), rng))

    return change


def json_at(*patterns):
    """A subject's damage: of the structure of one JSON file."""

    def change(directory, rng):
        files = sorted(p for pattern in patterns for p in directory.rglob(pattern))
        file = files[int(rng.integers(len(files)))]
        file.write_text(json.dumps(damage_json(json.loads(file.read_text()), rng)))

    return change


def tensors(directory, rng):
    """Damage the header of safetensors, whose length comes first."""
    (file,) = directory.rglob("*.safetensors")
    data = file.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    head = json.dumps(damage_json(json.loads(data[8 : 8 + length]), rng)).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])


# --- the subjects ---------------------------------------------------------------------------------


def first_steps(ds):
    ds.isel(time=slice(0, 2)).load()


def through(opener, **options):
    return lambda directory: first_steps(opener(directory, chunks=None, **options))


def at(name, opener, **options):
    return lambda directory: first_steps(opener(directory / name, chunks=None, **options))


def weather():
    return make_weather(steps=6)


def zarr_store(version):
    def make(directory):
        weather().to_zarr(directory / "a.zarr", zarr_format=version, consolidated=version == 2)

    return make


def bundle(directory):
    network = SimVPv2(2, 1, 1, encoder_channels=4, translator_channels=8, translator_blocks=2)
    task = Task("2m_temperature", 2, 1, "1h")
    Forecaster(network, task, mean=[280.0], std=[10.0]).save(directory / "b")


def attributes(_, rng):
    ds = weather()
    array = ds[str(rng.choice(list(ds.variables)))]
    name = str(rng.choice(["units", "scale_factor", "add_offset", "_FillValue", "missing_value",
                           "standard_name", "long_name", "positive", "axis", "calendar", "bounds",
                           "valid_min", "valid_range", "grid_mapping", "coordinates"]))  # fmt: skip
    value = ODD[int(rng.integers(len(ODD)))]
    array.attrs[name] = np.asarray(value, object) if rng.random() < 0.2 else value
    canonicalize(ds)[0].load()


#: Name: what makes the sound files, what damages them, what opens and reads them.
SUBJECTS = {
    "npy": (lambda d: write_mnist_test_seq(d), file_at("*.npy"),
            at("mnist_test_seq.npy", datasets.open_moving_mnist)),
    "idx": (lambda d: write_mnist(d, train=5010, zipped=False), file_at("train*"),
            through(datasets.open_moving_mnist, sequences=2)),
    "idx.gz": (lambda d: write_mnist(d, train=5010), file_at("train*"),
               through(datasets.open_moving_mnist, sequences=2)),
    "npz": (lambda d: write_taxibj_npz(d), file_at("*.npz"), through(datasets.open_taxibj)),
    "netcdf3": (lambda d: weather().to_netcdf(d / "a.nc", format="NETCDF3_CLASSIC"),
                file_at("*.nc"), at("a.nc", datasets.open_grid)),
    "netcdf4": (lambda d: weather().to_netcdf(d / "a.nc"), file_at("*.nc"),
                at("a.nc", datasets.open_grid)),
    "zarr2": (zarr_store(2), json_at("*/.zarray", "*/.zattrs", ".zmetadata"),
              at("a.zarr", datasets.open_grid)),
    "zarr3": (zarr_store(3), json_at("zarr.json"), at("a.zarr", datasets.open_grid)),
    "zarr text": (zarr_store(3), file_at("zarr.json"), at("a.zarr", datasets.open_grid)),
    "seq": (lambda d: write_caltech(d, sets={6: [6]}), file_at("*.seq"),
            through(datasets.open_caltech)),
    "avi": (lambda d: write_kth(d, persons=[1], actions=["boxing"], zipped=False),
            file_at("*.avi"), through(datasets.open_kth)),
    "zip": (lambda d: write_kth(d, persons=[1], actions=["boxing"]), file_at("*.zip"),
            through(datasets.open_kth)),
    "png": (lambda d: write_kitti(d, drives={"0001": 3}), file_at("*.png"),
            through(datasets.open_kitti)),
    "jpg": (lambda d: write_bridgedata(d, train=1, validation=0, test=0), file_at("*.jpg"),
            through(datasets.open_bridgedata, split=None)),
    "robonet": (lambda d: write_robonet(d, train=1, validation=0, test=0), file_at("*.hdf5"),
                through(datasets.open_robonet, split=None)),
    "hickle": (lambda d: write_prednet_hkl(d, parts={"train": [4]}), file_at("*.hkl"),
               through(datasets.open_kitti)),
    "bundle": (bundle, json_at("bundle.json"), lambda d: load(d / "b")),
    "weights": (bundle, tensors, lambda d: load(d / "b")),
    "weights' bytes": (bundle, file_at("*.safetensors"), lambda d: load(d / "b")),
}  # fmt: skip


# --- the child ------------------------------------------------------------------------------------


class NoEnd(BaseException):
    """Time is up; no OSError, as TimeoutError is, which readers take for damage."""


def subject(number: int) -> str:
    """Name what an input is made of."""
    names = [*SUBJECTS, "attributes"]
    return names[number % len(names)]


def attempt(number: int, seed: int, sound: Path, scratch: Path) -> str | None:
    """Try one input; what came of it unless it was right or an InputError."""
    rng, name = np.random.default_rng([seed, number]), subject(number)
    place = scratch / "now"
    shutil.rmtree(place, ignore_errors=True)
    # Of processor time: on a busy machine the clock goes on while nothing is computed.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 * SECONDS)  # a C library that does not end
    faulthandler.dump_traceback_later(30 * SECONDS, exit=True)  # what waits for ever
    try:
        if name == "attributes":
            attributes(place, rng)
            return None
        make, change, act = SUBJECTS[name]
        if not (sound / name).exists():
            (sound / name).mkdir()
            make(sound / name)
        shutil.copytree(sound / name, place)
        change(place, rng)
        act(place)
    except InputError:
        return None
    except BaseException:
        lines = traceback.format_exc().splitlines()
        return f"{name}: {' | '.join(lines[-9:])}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        faulthandler.cancel_dump_traceback_later()
    return None


def main(seed: int, first: int, stop: int) -> None:
    """Try the inputs `first` to `stop`; a line for each that is begun, and for each fault."""

    def ring(*_):
        raise NoEnd(f"no end within {SECONDS} s")

    signal.signal(signal.SIGPROF, ring)
    faulthandler.register(signal.SIGVTALRM, chain=True)  # and then the process ends
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as directory:
        sound, scratch = Path(directory, "sound"), Path(directory, "scratch")
        sound.mkdir()
        scratch.mkdir()
        for name, (make, _, act) in SUBJECTS.items():  # as they are, all are right
            (sound / name).mkdir()
            make(sound / name)
            act(sound / name)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**30,) * 2)
        for number in range(first, stop):
            sys.stdout.write(json.dumps([number, None]) + "\n")
            sys.stdout.flush()  # else a process that ends in its first input has begun none
            if fault := attempt(number, seed, sound, scratch):
                sys.stdout.write(json.dumps([number, fault]) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
