"""The one exception for what a user can mend."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the data, the configuration or the command line.

    The message says what is wrong, where, and how to mend it. The command line prints it as the last line on the
    screen, without a traceback, and exits with code 2.

    Args:
        message: One sentence or two.
        details: Lines to print before it.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details
