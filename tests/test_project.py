"""The project's own promises: light imports, public names, what the environments hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import stforecast

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
PUBLIC = {
    *("Task", "Forecaster", "TrainConfig", "Persistence", "Climatology", "SimVPv2"),
    *("fit", "predict", "load", "evaluate", "open_sample", "plot_map"),
    *("datasets", "models", "evaluation", "plots", "testing"),
}


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )


def requirement(text):
    name, bound = re.fullmatch(r"([A-Za-z0-9_-]+)(?:\[.*\])?\s*(.*)", text).groups()
    return name.lower(), bound


def conda_entries():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    return [entry for entry in environment["dependencies"] if isinstance(entry, str)]


def test_importing_is_light():
    heavy = ("torch", "cartopy", "dask", "xarray", "pandas", "numpy", "zarr", "matplotlib")
    code = f"import sys, stforecast; print([m for m in {heavy} if m in sys.modules])"
    assert python(code).stdout.strip() == "[]"


def test_a_public_name_loads_quietly():
    result = python("import stforecast; stforecast.predict")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_predict_needs_no_torch_before_it_has_a_model():
    names = "stforecast.predict; stforecast.evaluate; stforecast.plot_map"
    code = f"import sys, stforecast; {names}; print('torch' in sys.modules)"
    assert python(code).stdout.strip() == "False"


def test_public_names():
    assert set(dir(stforecast)) == PUBLIC
    for name in PUBLIC:
        assert getattr(stforecast, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'forecast'"):
        stforecast.forecast  # noqa: B018
    assert stforecast.__version__ == PROJECT["version"]


@pytest.mark.parametrize("entry", conda_entries())
def test_every_conda_entry_is_a_match_spec(entry):
    from rattler import MatchSpec

    assert MatchSpec(entry, strict=True).name is not None


def test_conda_holds_what_pip_needs_and_the_users_packages():
    entries = dict(requirement(entry) for entry in conda_entries())
    extras = PROJECT["optional-dependencies"]
    users = [*extras["maps"], *extras["climetlab"], *extras["cloud"]]
    users += extras["earthkit"][:1]  # conda's eccodes has no PROJ of its own, and needs no bound
    for text in [*PROJECT["dependencies"], *users]:
        name, bound = requirement(text)
        assert entries.get(CONDA.get(name, name)) == bound, name
    users = "pytorch xarray dask zarr netcdf4 cartopy numpy pandas climetlab"
    assert set(users.split()) <= set(entries)


def test_constraints_pin_everything_and_torch_to_a_version():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert "torch==2.13.0" in lines
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["maps"], *extras["cloud"], *extras["dev"]]
    names = {requirement(text)[0].replace("_", "-") for text in wanted}
    assert names - {"stforecast"} <= pinned


def test_no_prints_and_no_pickles_in_the_library():
    for path in (ROOT / "stforecast").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*print\(", text, re.MULTILINE), path
        assert not re.search(r"pickle\.loads?\(|weights_only=False", text), path


def test_heavy_modules_are_imported_where_they_are_used():
    """In functions; stores, which derive from zarr's classes, are themselves imported late."""
    heavy = {
        "dask",
        "cartopy",
        "matplotlib",
        "netCDF4",
        "zarr",
        "shapely",
        "h5py",
        "obstore",
        "tyro",
    }
    for path in (ROOT / "stforecast").rglob("*.py"):
        names = []
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.append(str(node.module))
        found = {name.split(".")[0] for name in names} & heavy
        assert not found or path.name in {"strict_store.py", "guarded_store.py"}, (path, found)


def test_nothing_large_is_shipped_by_accident():
    limits = {"datasets/sample": 16e6, "bundles": 10e6, "natural_earth": 2e6}
    package = ROOT / "stforecast"
    for folder, limit in limits.items():
        assert sum(p.stat().st_size for p in (package / folder).rglob("*") if p.is_file()) <= limit
