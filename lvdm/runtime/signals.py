"""Stop on Ctrl-C or SIGTERM: at the first one after the current step, so that a run can be resumed, else at once."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lvdm.runtime.distributed import Ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run was ended by a signal. Like KeyboardInterrupt it is no Exception, so `except Exception` lets it pass.

    Args:
        number: the signal's.
        advice: what the user can do next; it ends the message.
    """

    def __init__(self, number: int, *, advice: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{advice and f'; {advice}'}")
        self.exit_status = 128 + number


class Stop:
    """Tell whether any rank has received a signal. All ranks must ask at the same points of the run."""

    def __init__(self, ranks: Ranks, *, advice: str = "") -> None:
        self.ranks = ranks
        self.advice = advice
        self.signal: int | None = None

    def requested(self) -> bool:
        """Return whether a signal was received, on any rank."""
        return self.ranks.any(self.signal is not None)

    def check(self) -> None:
        """Raise Stopped if a signal was received. Call this only where everything is saved."""
        if self.requested():
            raise Stopped(self.signal or signal.SIGTERM, advice=self.advice)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)  # what was saved is on the disk; an orderly exit would wait for the threads
        self.signal = number
        if self.ranks.first:
            print("\nstopping after this step; once more to leave at once", file=sys.stderr)


@contextmanager
def stop_on_signals(ranks: Ranks, *, advice: str = "") -> Iterator[Stop]:
    """Yield a Stop that receives SIGINT and SIGTERM within this block. Only the main thread can enter it.

    Args:
        ranks: of which a signal to any stops all.
        advice: what the user can do after a stop, for the message.
    """
    stop = Stop(ranks, advice=advice)
    before = {number: signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
