"""Find frames at which something happens: seams, where the picture jumps, and duplicates, where it stands still.

Smooth motion has neither. Where it is fastest, the pairs of frames beside are fast too. Where it turns back, as at the
ends of an oscillation, two frames may be alike, but so are the frame before them and the frame after.
"""

import statistics
from collections import deque
from dataclasses import dataclass, field

REACH = 8  # pairs before and after; their median difference is the usual one
SEAM = 3.0  # times the usual difference
BUMP = 2.0  # times the second largest difference of the two pairs before and the two after
MIN_SEAM = 2.0  # levels of 255, on average over all pixels
DUPLICATE = 0.1  # of the usual difference; lossy files do not repeat a frame exactly
SAME = 0.02  # levels of 255: a smaller difference is none, whatever the usual one is
TURN = 0.5  # of the smaller difference beside: if the frames before and after differ by less, the motion turns back


@dataclass
class Events:
    """Collect the differences of consecutive frames, 0-255, and find the frames that are seams or duplicates.

    A pair of frames is judged as soon as REACH pairs on either side are known; no more pairs are kept in memory.
    """

    seams: list[int] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    _pairs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=2 * REACH + 1))
    _taken: int = 0
    _judged: int = 0

    def add(self, step: float, across: float) -> None:
        """Add the next frame, beginning with frame 1.

        Args:
            step: its difference to the frame before.
            across: its difference to the frame three before; any number if there is no such frame.
        """
        self._pairs.append((step, across))
        self._taken += 1
        if self._taken - self._judged > REACH:
            self._judge()

    def finish(self) -> None:
        """Judge the last pairs; nothing is added afterwards."""
        while self._judged < self._taken:
            self._judge()

    def _judge(self) -> None:
        at = self._judged - (self._taken - len(self._pairs))
        steps, across = zip(*self._pairs, strict=True)
        steps, across = (list(values)[max(0, at - REACH) : at + REACH + 1] for values in (steps, across))
        at = min(at, REACH)
        step = steps.pop(at)
        usual = statistics.median(steps) if steps else step
        beside = sorted(steps[max(0, at - 2) : at + 2])
        self._judged += 1
        if step > max(SEAM * usual, MIN_SEAM, BUMP * beside[-2] if len(beside) > 1 else 0):
            self.seams.append(self._judged)
        elif step <= max(DUPLICATE * usual, SAME):
            turns = 0 < at < len(steps) and across[at + 1] < TURN * min(steps[at - 1], steps[at])
            if not turns:
                self.duplicates.append(self._judged)
