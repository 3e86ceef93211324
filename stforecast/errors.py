"""What goes wrong, by name. ``InputError`` is in :mod:`stforecast.conventions` too."""


class InputError(ValueError):
    """Input that cannot be used: what was found, what was expected, how to mend it."""


class DivergenceError(RuntimeError):
    """A training whose loss became NaN or infinite."""
