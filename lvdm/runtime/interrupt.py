"""End a program on Ctrl-C without a traceback, also while it still imports torch.

Imports nothing but the standard library: an entry script calls `exit_on_interrupt` before it imports anything else.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

EXIT_STATUS = 128 + signal.SIGINT  # as shells have it
MESSAGE = f"stopped by {signal.SIGINT.name}"


def exit_on_interrupt() -> None:
    """Make Ctrl-C print one line and end the process with EXIT_STATUS at once, until another handler is set."""
    signal.signal(signal.SIGINT, _exit)


@contextmanager
def raising_on_interrupt() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt within this block, as in any Python program, so that files are tidied up."""
    if threading.current_thread() is not threading.main_thread():  # Python allows only that one to set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _exit(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"{MESSAGE}\n".encode())  # a print may have been interrupted, and cannot be entered twice
    os._exit(EXIT_STATUS)  # an exception could be caught, or turned into another one, by what is being imported
