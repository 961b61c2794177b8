"""The one exception that entry points turn into a message, and any other one in a line."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend; the message names place, value, rule and fix."""


def in_a_line(error: BaseException) -> str:
    """Type and first line of an error, for tables and logs; never empty."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].strip()
