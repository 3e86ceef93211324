"""What goes wrong, by name."""


class InputError(ValueError):
    """Input that cannot be used: what was found, what was expected, how to mend it."""


class DiskFullError(InputError, OSError):
    """A disk, or a quota on it, that is full: what was to be written is not there, not in parts."""


class DivergenceError(RuntimeError):
    """A training whose loss became NaN or infinite."""


class RankLostError(RuntimeError):
    """A process of a run of several that has ended, or does not answer, so that all must end."""
