"""How the documentation is built: ``make docs``, without a network, warnings as errors."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sphinx.util.nodes import make_refnode  # noqa: E402

import stforecast  # noqa: E402

project = "stforecast"
author = "The stforecast authors"
copyright = "The stforecast authors, Apache-2.0"
version = release = stforecast.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb"]
exclude_patterns = ["_build"]

# Pages: Markdown; the notebooks are shown as they were executed when they were committed.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # else fetched from the network when viewed

# The reference. Types stand in the docstrings; in the signatures as well they hide the names.
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
autodoc_preserve_defaults = True
autosummary_generate = False
if importlib.util.find_spec("climetlab") is None:  # of an extra; its module is shown all the same
    autodoc_mock_imports = ["climetlab"]
numpydoc_show_class_members = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

# A reference to something of ours that is not there is an error. Other projects' are not looked
# up: that would need the network.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"stforecast\..*\b_[a-z].*"),  # our private names have no page
    (
        r"py:.*",
        r"(xarray|xr|numpy|np|pandas|pd|torch|nn|matplotlib|cartopy|dask|zarr|zipfile|pathlib|os|"
        r"collections|tyro|rich|logging|cftime|av|datetime|safetensors|climetlab|obstore)\b.*",
    ),
]

html_theme = "pydata_sphinx_theme"
html_title = "stforecast"
html_static_path = ["_static"]
html_css_files = ["stforecast.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "header_links_before_dropdown": 8,
}
# Pages without a section of their own need no list of it.
html_sidebars = {
    page: []
    for page in (
        "index",
        "install",
        "tutorial",
        "data",
        "traps",
        "compare",
        "records",
        "design",
        "changelog",
    )
}
html_context = {"default_mode": "auto"}


def _copy_notebooks(app: object, config: object) -> None:
    """Put the notebooks where Sphinx finds them, with a list of them; git ignores the copies."""
    target = Path(__file__).parent / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    order = ("quickstart", "your_own_data", "verification", "how_sure", "traffic")  # then any other
    found = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    names = sorted(found, key=lambda name: order.index(name) if name in order else len(order))
    for name in names:
        shutil.copyfile(found[name], target / f"{name}.ipynb")
    lines = ["```{toctree}", ":maxdepth: 1", "", *names, "```"] if names else []
    intro = (Path(__file__).parent / "notebooks.txt").read_text()
    (target / "index.md").write_text("\n".join([intro, *lines, ""]))


def _exists(name: str) -> bool:
    """Whether a full name of ours means something, public or not."""
    found: object = stforecast
    for i, part in enumerate(name.split(".")[1:], start=2):
        home = ".".join(name.split(".")[:i])
        if hasattr(found, part):
            found = getattr(found, part)
        elif isinstance(found, ModuleType) and importlib.util.find_spec(home):
            found = importlib.import_module(home)
        else:
            return False
    return True


def _documented(name: str) -> object:
    home, _, last = name.rpartition(".")
    return getattr(sys.modules.get(home), last, None)


def _resolve_short_names(app, env, node, contnode):  # type: ignore[no-untyped-def]
    """Find what a docstring names as its module does: ``fit`` for ``stforecast.fit``.

    Resolves what the docstring's module means by a name, a public name, and a name that ends one
    documented object's only. A full name that exists and is not public is shown without a link;
    any other stays an error.
    """
    if node.get("refdomain") != "py":
        return None
    kinds = {
        "func": ("function",),
        "class": ("class", "exception"),
        "meth": ("method",),
        "attr": ("attribute", "property", "data"),
        "data": ("data",),
    }
    domain, target = env.get_domain("py"), node["reftarget"].lstrip(".~")
    allowed = kinds.get(node["reftype"])
    for name in dict.fromkeys([target, target.rpartition(".")[2]]):
        if name != target and (not target.startswith("stforecast.") or node["reftype"] == "meth"):
            break  # the last part alone stands for our own full names only
        found = [
            (full, entry)
            for full, entry in domain.objects.items()
            if (full == name or full.endswith(f".{name}"))
            and (allowed is None or entry.objtype in allowed)
            and not entry.aliased
        ]
        meant = getattr(sys.modules.get(node.get("py:module")), name, None)
        public = [pair for pair in found if pair[0] == f"stforecast.{name}"]
        same = [pair for pair in found if meant is not None and _documented(pair[0]) is meant]
        if len(found) == 1 or public or same:
            found = same or public or found
            full, entry = found[0]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, full
            )
    # What is not public has no page: its name is shown without a link.
    return contnode if target.startswith("stforecast.") and _exists(target) else None


def setup(app) -> None:  # type: ignore[no-untyped-def]
    """Register what is done before the pages are read."""
    os.environ.setdefault("TZ", "UTC")
    app.connect("config-inited", _copy_notebooks)
    app.connect("missing-reference", _resolve_short_names)
