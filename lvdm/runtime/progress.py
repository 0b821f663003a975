"""Show on stderr how far something is: a bar in a terminal, a line every ten seconds in a log file or pipe."""

import sys
from collections.abc import Iterable
from threading import Event, Thread
from time import monotonic

from tqdm import tqdm

LINE_INTERVAL = 10.0  # seconds between two lines of a bar, where stderr is not a terminal


class ProgressLines(tqdm):
    """A tqdm bar that prints lines instead of redrawing one: at most one in LINE_INTERVAL, and one when it ends.

    A bar that is not to stay (`leave`) prints nothing if it ends before its first line is due. A thread prints the line
    that is due while a step takes longer.
    """

    def __init__(self, *arguments: object, leave: bool, total: int | None, **keywords: object) -> None:
        self._began = monotonic()
        self._last_line = -LINE_INTERVAL if leave else self._began  # a bar that stays also shows where it began
        counts = (
            "{n_fmt}{unit} [{elapsed}"
            if total is None
            else "{percentage:.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}"
        )
        layout = f"{{desc}}: {counts}, {{rate_fmt}}{{postfix}}]"
        super().__init__(*arguments, leave=leave, total=total, bar_format=layout, **keywords)
        self._over = Event()
        Thread(target=self._show_while_steps_take_long, daemon=True).start()

    def _show_while_steps_take_long(self) -> None:
        while not self._over.wait(LINE_INTERVAL):
            self.refresh()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print a line, unless the last one is more recent than LINE_INTERVAL."""
        now = monotonic()
        if now - self._last_line >= LINE_INTERVAL:
            self._last_line = now
            self._print_line()
        return True

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: a line that was printed stays."""

    def close(self) -> None:
        """Print the last state as a line, unless the bar did not stay long enough to be seen."""
        if self.disable:
            return
        self.disable = True
        self._over.set()
        self._decr_instances(self)
        self._ema_dt = lambda: None  # makes the rate that of the whole time
        if self.leave or self._last_line > self._began:
            self._print_line()

    def _print_line(self) -> None:
        self.fp.write(f"{self}\n")
        self.fp.flush()


def progress_bar(
    iterable: Iterable | None = None,
    *,
    desc: str,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    leave: bool = False,
    disabled: bool = False,
) -> tqdm:
    """Return a tqdm bar on stderr, to iterate over, or to `update` by hand within a `with` block.

    In a terminal it is redrawn in place. Elsewhere, for example in a log file, it prints a line every ten seconds, also
    within a step, and one when it ends; less than ten seconds are not worth a line, unless `leave` is set. Nothing is
    written to stdout.
    Print messages in between with `print_above`.

    Args:
        iterable: what to iterate over; None to `update` by hand.
        desc: what is going on, in a word or two.
        total: how many steps there are; None if that is unknown or known by the length of `iterable`.
        unit: what a step is called, "frame" for example.
        initial: how many steps were done before.
        leave: keep the bar in the terminal when it ends; in a log file also show its first state.
        disabled: show nothing, as on all ranks but the first.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    kind = tqdm if disabled or sys.stderr.isatty() else ProgressLines
    return kind(
        iterable, desc=desc, total=total, unit=unit, initial=initial, leave=leave, disable=disabled, file=sys.stderr
    )


def print_above(message: str) -> None:
    """Print a message on stderr, above the progress bars if there are some."""
    tqdm.write(message, file=sys.stderr)
