"""Ctrl-C and SIGTERM: the first asks the run to stop where it can go on later, the second ends it at once."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lvdm.runtime.distributed import Ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run ended because of a signal; like Ctrl-C itself it is not an Exception that someone may handle."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_status = 128 + number


class Stop:
    """Whether a signal has come, on any of the ranks: all of them must ask at the same places."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.signal: int | None = None

    def requested(self) -> bool:
        return self.ranks.any(self.signal is not None)

    def check(self) -> None:
        """Stopped, if a signal has come. To be called where nothing is lost by it."""
        if self.requested():
            raise Stopped(self.signal or signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)  # what was saved is on the disk; threads would have to finish what they compute
        self.signal = number
        if self.ranks.first:
            print("\nstopping after this step; once more to leave at once", file=sys.stderr)


@contextmanager
def stop_on_signals(ranks: Ranks) -> Iterator[Stop]:
    """Within this context the signals are told to the Stop that it yields. (Only the main thread gets signals.)"""
    stop = Stop(ranks)
    before = {number: signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
