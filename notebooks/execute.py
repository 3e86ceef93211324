"""Execute the notebooks: ``python notebooks/execute.py`` writes each .ipynb from its .py.

The .py files (jupytext, percent format) are the source. They run in a temporary directory which has
``../../shared`` where this checkout has it, so nothing that a notebook writes stays behind.
"""

from __future__ import annotations

import os
import sys
import tempfile
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = ("quickstart", "your_own_data", "verification", "how_sure", "traffic")
SHARED = HERE.parents[1] / "shared"


def read(name: str) -> Any:
    """Read the source of a notebook: cells without outputs, with ids that stay the same."""
    import jupytext

    notebook = jupytext.read(HERE / f"{name}.py")
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{name.replace('_', '-')}-{i}"
    notebook.metadata.pop("jupytext", None)
    notebook.nbformat_minor = 5
    return notebook


def execute(notebook: Any, *, shared: bool = True, timeout: float = 900) -> Any:
    """Run a notebook in place, in a directory of its own; an error in a cell is raised.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        From :func:`read`.
    shared : bool
        Show it the real data, where there are any. Without them it makes synthetic ones.
    timeout : float
        Seconds for a cell.
    """
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as root:
        work = Path(root, "checkout", "notebooks")
        work.mkdir(parents=True)
        if shared and SHARED.is_dir():
            Path(root, "shared").symlink_to(SHARED, target_is_directory=True)
        # The kernel is a new interpreter: it finds the library as this checkout has it.
        path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "default"}
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": str(work)}},
            record_timing=False,
        )
        return client.execute(env=env)


def shrink(notebook: Any) -> None:
    """Make the pictures smaller: the size at which they are shown, and 256 colours."""
    from PIL import Image

    for output in (o for cell in notebook.cells for o in cell.get("outputs", ())):
        if "image/png" in output.get("data", {}):
            image = Image.open(BytesIO(b64decode(output["data"]["image/png"]))).convert("RGB")
            shown = output["metadata"].get("image/png")
            if shown:
                size = (shown["width"], shown["height"])
                image = image.resize(size, Image.Resampling.LANCZOS)
            stream = BytesIO()
            image.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
            output["data"]["image/png"] = b64encode(stream.getvalue()).decode() + "\n"


def main(names: list[str]) -> None:
    """Write the named notebooks, or all."""
    import nbformat

    for name in names or NAMES:
        notebook = execute(read(name))
        for key in [k for k in notebook.metadata if k != "kernelspec"]:
            del notebook.metadata[key]  # the version of Python, and the like
        shrink(notebook)
        nbformat.validate(notebook)
        nbformat.write(notebook, HERE / f"{name}.ipynb")
        sys.stdout.write(f"{name}.ipynb\n")


if __name__ == "__main__":
    main(sys.argv[1:])
