"""Stop a run on Ctrl-C or SIGTERM: the first signal stops it where it can go on later, the second ends it at once."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lvdm.runtime.distributed import Ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Say that a run ended because of a signal; like Ctrl-C itself it is not an Exception that code may handle.

    Args:
        number: the signal's.
        advice: what the user can do next; it ends the message.
    """

    def __init__(self, number: int, *, advice: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{advice and f'; {advice}'}")
        self.exit_status = 128 + number


class Stop:
    """Tell whether a signal has come, on any of the ranks: all of them must ask at the same places."""

    def __init__(self, ranks: Ranks, *, advice: str = "") -> None:
        self.ranks = ranks
        self.advice = advice
        self.signal: int | None = None

    def requested(self) -> bool:
        """Return whether a signal has come."""
        return self.ranks.any(self.signal is not None)

    def check(self) -> None:
        """Raise Stopped if a signal has come. Call it where nothing is lost by it."""
        if self.requested():
            raise Stopped(self.signal or signal.SIGTERM, advice=self.advice)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)  # what was saved is on the disk; threads would have to finish what they compute
        self.signal = number
        if self.ranks.first:
            print("\nstopping after this step; once more to leave at once", file=sys.stderr)


@contextmanager
def stop_on_signals(ranks: Ranks, *, advice: str = "") -> Iterator[Stop]:
    """Yield a Stop that the signals set within this context. Only the main thread gets signals.

    advice: what the user can do after a stop, for the message.
    """
    stop = Stop(ranks, advice=advice)
    before = {number: signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
