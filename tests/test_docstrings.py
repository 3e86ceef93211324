"""Public functions say what goes in, what comes out, and what is refused."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
from numpydoc.docscrape import NumpyDocString

ROOMS = (
    *("", "datasets", "conventions", "task", "models", "loading", "forecasting", "baselines"),
    *("evaluation", "plots", "training", "testing", "cli"),
)


def public():
    """Functions, classes and public methods of classes that the rooms' doors show."""
    seen = {}
    for room in ROOMS:
        door = importlib.import_module(f"stforecast.{room}".rstrip("."))
        for name in getattr(door, "__all__", None) or [n for n in vars(door) if n[0] != "_"]:
            value = getattr(door, name)
            home = getattr(value, "__module__", "") or ""
            if not home.startswith("stforecast"):
                continue
            if inspect.isroutine(value):
                seen[f"{home}.{name}"] = value
            elif inspect.isclass(value):
                for method, function in vars(value).items():
                    function = getattr(function, "__func__", function)
                    if method[0] != "_" and getattr(function, "__name__", "") == method:
                        seen[f"{home}.{name}.{method}"] = function
    return seen


PUBLIC = public()


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_the_docstring_has_its_sections(name):
    function = PUBLIC[name]
    doc = NumpyDocString(inspect.getdoc(function) or "")
    takes = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "cls")
    ]
    refers = re.search(r"(?i)parameters.* as of :(func|meth):", " ".join(doc["Summary"]))
    told = {n.strip(" *") for p in doc["Parameters"] for n in p.name.split(",")}
    assert doc["Summary"], "no summary"
    if len(takes) > 1 and not refers:  # of one the summary can tell
        assert told >= {t for t in takes if t not in ("kwargs",)}, set(takes) - told
    gives = inspect.signature(function).return_annotation
    its_own = gives in (name.split(".")[-2], "Self")  # makes, or returns, its own kind
    if takes and not its_own and not refers and gives not in (None, "None", "bool"):
        assert doc["Returns"] or doc["Yields"] or len(takes) == 1, "no Returns"
