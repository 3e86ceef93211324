"""Data sets: each ``open_*()`` gives a canonical, lazy :class:`xarray.Dataset`."""

from ..package import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
