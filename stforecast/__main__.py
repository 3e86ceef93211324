"""``python -m stforecast score FORECAST... TRUTH``: what can be run without a script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command named first; the rest are its own options."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name != "score":
        found = f", found {name!r}" if name else ""
        raise SystemExit(f"usage: python -m stforecast score FORECAST... TRUTH [options]{found}")
    from .cli.score import command

    command()


if __name__ == "__main__":
    main()
