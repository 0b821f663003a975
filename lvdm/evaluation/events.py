"""Frames at which something happens: seams, where the picture jumps, and duplicates, where it stands still."""

import statistics
from collections import deque
from dataclasses import dataclass, field

REACH = 8  # pairs before and after, whose median says what is usual here
SEAM = 3.0  # times the usual difference
MIN_SEAM = 2.0  # levels of 255, on average over all pixels
DUPLICATE = 0.1  # of the usual difference; files that are not lossless do not repeat a frame exactly
SAME = 0.02  # levels of 255: less is no difference, whatever is usual


@dataclass
class Events:
    """Takes the difference of each pair of frames, 0-255, and finds the frames that open a seam or repeat the last.

    It judges a pair when it knows REACH pairs on either side, and holds no more than those.
    """

    seams: list[int] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    _pairs: deque[float] = field(default_factory=lambda: deque(maxlen=2 * REACH + 1))
    _taken: int = 0
    _judged: int = 0

    def add(self, difference: float) -> None:
        """The difference of the next pair; the first one's frame is number 1."""
        self._pairs.append(difference)
        self._taken += 1
        if self._taken - self._judged > REACH:
            self._judge()

    def finish(self) -> None:
        """There are no more pairs."""
        while self._judged < self._taken:
            self._judge()

    def _judge(self) -> None:
        at = self._judged - (self._taken - len(self._pairs))
        around = list(self._pairs)[max(0, at - REACH) : at + REACH + 1]
        difference = around.pop(min(at, REACH))
        usual = statistics.median(around) if around else difference
        self._judged += 1
        if difference > max(SEAM * usual, MIN_SEAM):
            self.seams.append(self._judged)
        elif difference <= max(DUPLICATE * usual, SAME):
            self.duplicates.append(self._judged)
