"""The documentation: every block of code runs, the pages build cleanly, no function is missing."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import os
import pkgutil
import re
import subprocess
import sys
import zlib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import stforecast
from stforecast.testing.weather import make_weather, relabel

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "AGENTS.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("howto/*.md")),
]
#: Languages of fenced blocks. The first two run; ``output`` is held against what was printed.
RUN, PLAIN = ("python", "sh"), ("output", "text", "json")
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n+)?"
    r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
pytestmark = pytest.mark.filterwarnings("ignore:.*forked.*:DeprecationWarning")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    reason: str | None


def blocks_of(text: str) -> list[Block]:
    """Fenced blocks of a page, in order; `line` is that of the first line of code."""
    return [
        Block(m["language"], m["code"], text[: m.start("code")].count("\n") + 1, m["reason"])
        for m in _FENCE.finditer(text)
    ]


def regional_zarr(directory: Path) -> None:
    """What README opens: two years of 6-hourly temperatures of a region, as they come."""
    ds = make_weather(2920, time="2013-01-01", timestep="6h", shape=(12, 16))
    ds = ds.isel(latitude=slice(5, 11), longitude=slice(8, 16))
    ds = relabel(ds, names={"2m_temperature": "air"}, north_first=True)
    ds.chunk(time=1460).to_zarr(directory / "air_temperature.zarr", zarr_format=2)


def hourly_netcdf(directory: Path) -> None:
    """What README opens: a person's own netCDF file."""
    ds = make_weather(240, shape=(12, 24))
    relabel(ds, names={"2m_temperature": "t2m"}, north_first=True, west_negative=True).to_netcdf(
        directory / "my_file.nc"
    )


#: Files that a page takes for granted, as a reader's own.
GIVEN = {"README.md": (regional_zarr, hourly_netcdf)}
#: Packages of extras that a page cannot do without.
NEEDED = {"cluster.md": "distributed", "climetlab.md": "climetlab", "earthkit.md": "earthkit.data"}


def installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # nor what it is within
        return False


def printed(got: str, wanted: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(wanted, got, flags)


def run_python(block: Block, page: Path, namespace: dict) -> str:
    # Empty lines before it give a traceback the line of the page.
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, namespace)
    return out.getvalue()


def run_shell(block: Block, page: Path, directory: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HOME": str(directory),  # climetlab keeps settings there
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, f"{page}:{block.line}\n{result.stdout}\n{result.stderr[-4000:]}"
    return result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(page, tmp_path, monkeypatch):
    """The blocks of a page run one after the other, in one namespace, in an empty directory."""
    blocks = blocks_of(page.read_text())
    if not any(b.language in RUN and b.reason is None for b in blocks):
        pytest.skip("no code on this page")
    if page.name in NEEDED and not installed(NEEDED[page.name]):
        pytest.skip(f"needs the package {NEEDED[page.name]}")
    if page.name == "climetlab.md" and not entry_points(group="climetlab.datasets").names:
        pytest.skip("the package was installed before it had entry points: install it again")
    monkeypatch.chdir(tmp_path)
    for folder in ("pipelines", "benchmarks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for give in GIVEN.get(page.name, ()):
        give(tmp_path)
    namespace, out = {"__name__": "__main__"}, ""
    for block in blocks:
        if block.reason is not None:
            continue
        if block.language == "python":
            out = run_python(block, page, namespace)
        elif block.language == "sh":
            out = run_shell(block, page, tmp_path)
        elif block.language == "output":
            assert printed(out, block.code), f"{page}:{block.line}\nprinted:\n{out}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_does_not_run_says_why(page):
    for block in blocks_of(page.read_text()):
        if not block.language.startswith("{"):  # a directive
            assert block.language in (*RUN, *PLAIN), f"{page}:{block.line}: {block.language}"
        assert block.reason is None or len(block.reason) > 10


def test_blocks_are_found_where_they_are():
    text = "x\n```python\na = 1\n```\n\n<!-- not run: it needs a card -->\n```sh\nls\n```\n"
    first, second = blocks_of(text)
    assert first == Block("python", "a = 1\n", 3, None)
    assert second == Block("sh", "ls\n", 8, "it needs a card")
    with pytest.raises(ZeroDivisionError) as caught:
        run_python(Block("python", "1 / 0\n", 7, None), Path("page.md"), {})
    assert caught.traceback[-1].lineno == 6  # counted from 0
    assert printed("a 1.25 b\n", "a ... b\n")
    assert not printed("a 1.25 c\n", "a ... b\n")


def test_the_tests_that_the_traps_name_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "traps.md").read_text())
    assert len(named) > 20
    missing = [n for n in named if f"def {n[1]}(" not in (ROOT / n[0]).read_text()]
    assert not missing


def test_licences_are_those_of_the_adapters():
    addresses = importlib.import_module("stforecast.datasets.download").addresses

    rows = (DOCS / "data.md").read_text().splitlines()
    for name, address in addresses().items():
        row = next(row for row in rows if f"(`{name}`)" in row)
        assert all(part in row for part in (address.licence, address.reader, address.size)), name


def test_grib_and_maps_go_together():
    """Two copies of PROJ in one process crash it at its end: see the page of traps.

    xarray loads cfgrib when it is to find out what a file is, so every first map would end so.
    """
    pytest.importorskip("cfgrib")
    result = subprocess.run([sys.executable, "-c", "import cfgrib, pyproj, cartopy.crs"])
    assert result.returncode == 0


# --- the pages as built ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Pages built as `make docs` builds them: warnings are errors."""
    pytest.importorskip("myst_nb", reason="needs the extra docs")
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    result = subprocess.run(
        [*command, "-d", str(out / "doctrees"), str(DOCS), str(out / "html")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert not result.stderr, result.stderr
    assert result.returncode == 0
    return out / "html"


def pages_of(built: Path) -> list[Path]:
    found = [p for p in built.rglob("*.html") if "_static" not in p.parts]
    assert len(found) > 30
    return found


def modules() -> list[str]:
    """The doors: what a room's ``__init__`` names is public, and three modules of the top."""
    rooms = [m.name for m in pkgutil.iter_modules(stforecast.__path__, "stforecast.") if m.ispkg]
    assert len(rooms) > 10
    return ["stforecast", *rooms, "stforecast.task", "stforecast.errors", "stforecast.climetlab"]


def public_names(module) -> dict[str, object]:
    """Functions and classes of a module's ``__all__``; without one, those it defines."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
        ]
    found = {name: getattr(module, name) for name in names}
    return {n: v for n, v in found.items() if inspect.isclass(v) or inspect.isroutine(v)}


def test_every_public_function_is_in_the_reference(built):
    packed = (built / "objects.inv").read_bytes().split(b"\n", 4)[4]  # after four lines of header
    entries = [line.split()[:2] for line in zlib.decompress(packed).decode().splitlines()]
    documented = {name for name, kind in entries if kind == "py:module"}
    objects = []
    for name, kind in entries:
        if kind in ("py:function", "py:class", "py:exception"):
            home, _, last = name.rpartition(".")
            with contextlib.suppress(ImportError):  # of a name under its owner: never looked for
                objects.append(getattr(importlib.import_module(home), last))
    shown = {id(value) for value in objects}
    missing = []
    for name in modules():
        if name not in documented:
            missing.append(name)
        if name == "stforecast.climetlab" and find_spec("climetlab") is None:
            continue
        module = importlib.import_module(name)
        missing += [f"{name}.{n}" for n, v in public_names(module).items() if id(v) not in shown]
    assert not missing, f"not in docs/reference: {missing}"


def test_pages_need_no_network(built):
    for page in pages_of(built):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', text)
        assert not fetched, (page, fetched)


def test_links_within_the_pages_lead_somewhere(built):
    for page in pages_of(built):
        for link in re.findall(r'(?:href|src)="([^"#?:]+)["#?]', page.read_text()):
            target = (page.parent / link).resolve()
            assert target.exists(), (page.relative_to(built), link)


def test_notebooks_are_shown_as_they_were_executed(built):
    for source in (ROOT / "notebooks").glob("*.ipynb"):
        page = built / "notebooks" / f"{source.stem}.html"
        assert page.is_file(), f"{source.name} is not shown"
        assert "cell_output" in page.read_text(), f"{source.name} has no outputs"
