"""Read flags strictly, and end with one line on stderr and exit status 2 where something is wrong with them."""

import argparse
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import NoReturn

from lvdm.runtime.errors import one_line, print_error
from lvdm.runtime.interrupt import EXIT_STATUS, MESSAGE, raising_on_interrupt


class Parser(argparse.ArgumentParser):
    """Read flags strictly: an abbreviated flag is an error, and errors are ValueErrors of one line.

    Args:
        description: what `--help` begins with; its line ends are kept.
        usage: the first line of `--help`; by default made of all flags.
        epilog: what `--help` ends with.
        argument_default: what a flag that is not given is worth; argparse.SUPPRESS leaves it out.
        add_help: whether there is a `--help`.
    """

    def __init__(
        self,
        description: str | None,
        *,
        usage: str | None = None,
        epilog: str | None = None,
        argument_default: object = None,
        add_help: bool = True,
    ) -> None:
        super().__init__(
            usage=usage,
            epilog=epilog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            argument_default=argument_default,
            add_help=add_help,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError, where argparse would print the usage and exit; say which flags look alike."""
        kind, _, unknown = message.partition("unrecognized arguments: ")
        if not kind and unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            alike = get_close_matches(unknown.split()[0].partition("=")[0], known, n=1)
            message += f"; did you mean {alike[0]}?" if alike else "; --help lists the flags"
        raise ValueError(one_line(message))


def at_least(lowest: int) -> Callable[[str], int]:
    """Return what reads a whole number from `lowest` on the command line, as argparse's `type`."""

    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = lowest - 1
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from {lowest}")
        return number

    return read


def with_error_lines(main: Callable[..., int]) -> Callable[..., int]:
    """Make `main` print a ValueError or OSError as one line on stderr and return 2; for Ctrl-C it returns 130."""

    @wraps(main)
    def command(*arguments: object) -> int:
        try:
            with raising_on_interrupt():
                return main(*arguments)
        except KeyboardInterrupt as stop:  # or Stopped, which knows its signal
            print(str(stop) or MESSAGE, file=sys.stderr)
            return getattr(stop, "exit_status", EXIT_STATUS)
        except (ValueError, OSError) as error:
            print_error(error)
            return 2

    return command
