"""Forecasters, their bundles, and forecasts with labels."""

from ..package import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
