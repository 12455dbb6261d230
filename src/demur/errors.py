"""The one error that users are meant to read."""

from __future__ import annotations


class DemurError(Exception):
    """Something the user can mend.

    The message is a single line that says what is wrong and how to mend it. The command line
    prints it without a traceback and exits with status 2.
    """
