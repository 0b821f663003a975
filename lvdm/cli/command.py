"""What all commands share: flags that are read strictly, and errors that are one line on stderr with exit status 2."""

import argparse
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn

from lvdm.runtime.errors import one_line
from lvdm.runtime.interrupt import EXIT_STATUS, MESSAGE, raising_on_interrupt


class Parser(argparse.ArgumentParser):
    """Its errors are ValueErrors of one line. An abbreviated flag is one. The description keeps its lines."""

    def __init__(self, description: str | None, *, epilog: str | None = None) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, epilog=epilog, formatter_class=raw, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ValueError(one_line(message))


def says_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Let `main` end with a line on stderr and exit status 2 for a ValueError or OSError, and with 130 for Ctrl-C."""

    @wraps(main)
    def command(*arguments: object) -> int:
        try:
            with raising_on_interrupt():
                return main(*arguments)
        except KeyboardInterrupt:
            print(MESSAGE, file=sys.stderr)
            return EXIT_STATUS
        except (ValueError, OSError) as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 2

    return command
