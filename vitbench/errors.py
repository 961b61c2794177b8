"""The one exception that entry points turn into a message instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend; the message names place, value, rule and fix."""
