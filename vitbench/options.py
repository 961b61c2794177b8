"""Command lines whose errors name the option that was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NoReturn

from vitbench.words import nearest


class Parser(argparse.ArgumentParser):
    """argparse's parser, which says of an unknown option which one is close to it."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and end with exit code 2."""
        before, unknown, rest = message.partition("unrecognized arguments: ")
        if unknown and not before:
            options = [word.partition("=")[0] for word in rest.split() if word.startswith("-")]
            close = [nearest(option, _options_of(self)) for option in options]
            if hints := [f"'{name}'" for name in close if name]:
                message += f"; did you mean {' and '.join(hints)}?"
        super().error(message)


def _options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a command line and of its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _options_of(one)
