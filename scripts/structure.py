"""Prints the size and the direction of the library: files, lines, floors, imports up, circles.

    python scripts/structure.py

Imports are read from the source with :mod:`ast`, those within functions and under
``TYPE_CHECKING`` too. ``tests/test_architecture.py`` holds the library to what is found here.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "stforecast"

#: From the ground up: a room imports from its own floor's folder and from the floors below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "package"),
    ("files",),
    ("storing", "parallel"),
    ("conventions",),
    ("task",),
    ("models",),
    ("datasets",),
    ("testing",),
    ("climetlab", "loading"),
    ("forecasting",),
    ("baselines",),
    ("evaluation",),
    ("plots",),
    ("training",),
    ("cli",),
    ("", "__main__"),
)
#: Folders of data, not of code.
DATA = {"bundles", "natural_earth"}
#: Where a network library may be imported.
TORCH = ("models", "loading", "forecasting", "training", "evaluation.lpips")
LONG = 400


@dataclass(frozen=True)
class Import:
    """One import: of `name` (None: the module itself) of `target`, in `source` at `line`."""

    source: str
    target: str
    name: str | None
    line: int


def modules(library: Path = LIBRARY) -> dict[str, Path]:
    """Path of every module, by its name within the library; "" is the library itself."""
    found = {}
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def _import_nodes(text: str) -> list[ast.Import | ast.ImportFrom]:
    nodes = ast.walk(ast.parse(text))
    return [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def imports(library: Path = LIBRARY) -> Iterator[Import]:
    """Every import; those from outside have a `target` that begins with "/"."""
    known, name = modules(library), library.name
    for source, path in known.items():
        package = source.split(".") if source else []
        if path.name != "__init__.py":
            package = package[:-1]
        for node in _import_nodes(path.read_text()):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    head, _, rest = alias.name.partition(".")
                    target = rest if head == name else f"/{head}"
                    yield Import(source, target, None, node.lineno)
            elif not node.level and (node.module or "").split(".")[0] != name:
                yield Import(source, f"/{node.module}".split(".")[0], None, node.lineno)
            else:
                base = package[: len(package) - node.level + 1] if node.level else []
                inside = (node.module or "").split(".")[0 if node.level else 1 :]
                module = ".".join([*base, *filter(None, inside)])
                for alias in node.names:
                    child = f"{module}.{alias.name}" if module else alias.name
                    if child in known:
                        yield Import(source, child, None, node.lineno)
                    else:
                        yield Import(source, module, alias.name, node.lineno)


def room(module: str) -> str:
    """The top-level entry that a module stands in."""
    return module.split(".")[0]


def floor(module: str) -> int:
    """How high a module stands."""
    return next((i for i, rooms in enumerate(FLOORS) if room(module) in rooms), -1)


def upward(library: Path = LIBRARY) -> list[Import]:
    """Imports that go up, or to another room of the same floor."""
    return [
        i
        for i in imports(library)
        if not i.target.startswith("/")
        and room(i.source) != room(i.target)
        and floor(i.target) >= floor(i.source)
    ]


def private(library: Path = LIBRARY) -> list[Import]:
    """Imports of a private name, or from a private module, of another room."""
    return [
        i
        for i in imports(library)
        if not i.target.startswith("/")
        and room(i.source) != room(i.target)
        and any(
            p.startswith("_") and not p.startswith("__")
            for p in [*i.target.split("."), i.name or ""]
        )
    ]


def misplaced(library: Path = LIBRARY) -> list[Import]:
    """Imports of torch where there is no network, and of xarray among the networks."""
    return [
        i
        for i in imports(library)
        if (i.target == "/torch" and not f"{i.source}.".startswith(tuple(f"{t}." for t in TORCH)))
        or (i.target == "/xarray" and room(i.source) == "models")
    ]


def circles(library: Path = LIBRARY) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's algorithm."""
    edges: dict[str, set[str]] = {m: set() for m in modules(library)}
    for i in imports(library):
        if i.target in edges and i.target != i.source:
            edges[i.source].add(i.target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in sorted(edges[v]):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = stack[stack.index(v) :]
            del stack[stack.index(v) :]
            if len(group) > 1:
                found.append(sorted(group))

    for m in edges:
        if m not in index:
            visit(m)
    return found


def code_lines(source: str) -> int:
    """Lines that hold code: no comments, no docstrings, no blank lines."""
    lines: set[int] = set()
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines -= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return len(lines)


def entries(library: Path = LIBRARY) -> list[str]:
    """Files and folders of code at the top."""
    return sorted(
        p.name
        for p in library.iterdir()
        if (p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))) and p.name not in DATA
    )


def main() -> None:
    """Print it."""
    paths, name = modules().values(), LIBRARY.name
    texts = {p: p.read_text() for p in paths}
    sizes = {p: len(t.splitlines()) for p, t in texts.items()}
    long = [p for p in paths if sizes[p] > LONG]
    print(f"files                    {len(texts):>6}")
    print(f"lines                    {sum(sizes.values()):>6,}")
    print(f"lines of code            {sum(map(code_lines, texts.values())):>6,}")
    print(f"top-level entries        {len(entries()):>6}   {' '.join(entries())}")
    print(f"files over {LONG} lines     {len(long):>6}")
    for p in sorted(long, key=lambda p: -sizes[p]):
        print(f"    {sizes[p]:>5} {p.relative_to(LIBRARY)}")
    for title, found in (
        ("imports up", upward()),
        ("private across rooms", private()),
        ("misplaced", misplaced()),
    ):
        print(f"{title:<25}{len(found):>6}")
        for i in found:
            print(
                f"    {i.source or name}:{i.line} imports {i.target}{f'.{i.name}' * bool(i.name)}"
            )
    print(f"circles                  {len(circles()):>6}")
    for group in circles():
        print(f"    {', '.join(m or name for m in group)}")


if __name__ == "__main__":
    main()
