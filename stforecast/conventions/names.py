"""Names that a result can be written under, in netCDF and in zarr."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ..errors import InputError

#: How the variables of a scorecard end beside their own names.
RESULTS = ("_overall", "_skill")


def refuse_names(names: Iterable[Hashable], variables: Iterable[Hashable]) -> None:
    """Refuse names that no file can hold, before any work is done.

    What netCDF refuses (``NC_check_name``) or gives back as another name, and zarr: names that do
    not begin with a letter, a digit or an underscore, that hold a slash, a backslash or a control
    character, end with a blank, are longer than 255 bytes or no Unicode. `variables` are those of
    them that are not called as our own results are.
    """
    for name in names:
        if reason := _unfit(name):
            raise InputError(
                f"the name {repr(name)[:60]} {reason}, which netCDF or zarr refuse: use ds.rename, "
                "or leave out what is not needed by variables=[...]"
            )
    for name in variables:
        if str(name).endswith(RESULTS):
            raise InputError(
                f"the variable '{str(name)[:60]}' is called as the library's own results are "
                f"(... {' or '.join(RESULTS)}): use ds.rename, or leave it out by variables=[...]"
            )


def _unfit(name: Hashable) -> str | None:
    """Say why no file can hold a name; None where it can."""
    if not isinstance(name, str):
        return f"is no text ({type(name).__name__})"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is no Unicode (a lone surrogate)"
    if not 0 < size <= 255:
        return f"has {size} bytes, expected 1 to 255"
    if any(c in "/\\\x7f" or c < " " for c in name):
        return "holds a slash, a backslash or a control character"
    if name.endswith(" "):
        return "ends with a blank"
    if name[0].isascii() and not (name[0].isalnum() or name[0] == "_"):
        return f"begins with {name[0]!r}, expected a letter, a digit or an underscore"
    return None
