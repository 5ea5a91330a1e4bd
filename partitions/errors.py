"""The one exception of this package."""


class DataError(ValueError):
    """A data set cannot be had, or a split cannot be made; the message is one line that a user can act on."""
