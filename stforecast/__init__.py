"""Geoscience forecasting on labelled arrays.

``stforecast.predict(ds)`` takes gridded history as an :class:`xarray.Dataset` and gives the
forecast back with the labels it came with. The public names stand in ``__init__.pyi``; they are
loaded when they are first used, so ``import stforecast`` needs neither torch nor dask nor cartopy.
"""

from .package import __version__ as __version__
from .package import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
