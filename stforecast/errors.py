"""The error that bad input raises; :mod:`stforecast.conventions` is where to import it from."""


class InputError(ValueError):
    """Input that cannot be used: what was found, what was expected, how to mend it."""
