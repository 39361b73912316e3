"""The one exception for mistakes a user can make."""


class UserError(Exception):
    """A mistake of the user's, said in one line: what is wrong, where, and what to do about it.

    Command-line entry points print it without a traceback and exit with code 2.
    """
