"""The one exception for what a user can mend."""


class UserError(Exception):
    """A mistake in the data, the configuration or the command line.

    The message says what is wrong, where, and how to mend it. The command line prints it as the last line on the
    screen, without a traceback, and exits with code 2.
    """
