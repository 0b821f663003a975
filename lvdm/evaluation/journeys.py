"""Measure whether a journey keeps its look, moves smoothly and follows its prompt, by reading windows of its frames.

The captions are those of the journeys grammar (lvdm.data.journeys.captions). lvdm.data.journey_reader reads windows of
WINDOW frames, one every STRIDE frames, so that each shares half of its frames with the next.

This module does not import torch.
"""

import math
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import dropwhile, pairwise

import numpy as np

from lvdm.data.journey_reader import WINDOW, Reading, is_readable, read_clip, score
from lvdm.data.journey_scroll import scroll_steps
from lvdm.data.journeys.captions import parse_caption
from lvdm.data.journeys.scene import Words
from lvdm.evaluation.metrics import Curve
from lvdm.evaluation.sources import in_force

STRIDE = 8  # frames
HALF = WINDOW // 2
AWAITED = ("subject", "color", "direction", "place", "time", "pace")  # words that a schedule can change

Points = Sequence[tuple[int, float]]  # pairs of the frame in a window's middle and the value there


@dataclass(frozen=True)
class Window:
    """What WINDOW consecutive frames show.

    Args:
        begin: number of the first frame.
        reading: the words.
        jerk: see `jerk`.
    """

    begin: int
    reading: Reading
    jerk: float

    @property
    def end(self) -> int:
        """Return the number of the frame after the last."""
        return self.begin + WINDOW

    @property
    def middle(self) -> int:
        """Return the number of the frame in the middle."""
        return self.begin + HALF


@dataclass(frozen=True)
class Awaited:
    """A word that a schedule changes: a field `name` of `words`, from frame `begin` on and before frame `end`."""

    name: str
    words: Words
    begin: int
    end: float

    def is_shown(self, reading: Reading) -> bool:
        """Return whether the word was read."""
        return score(reading, self.words)[self.name]


@dataclass
class Journey:
    """Read the frames of a video as they come; no more than a window and a stride of them are kept.

    Args:
        schedule: pairs of a frame and the words from that frame on, the first at frame 0.

    Args:
        windows: the windows that were read.
        delays: for each word that was awaited and shown, the frames from its prompt to the middle of the first window
            that shows it, found to the frame.
    """

    schedule: Sequence[tuple[int, Words]]
    windows: list[Window] = field(default_factory=list)
    delays: dict[Awaited, int] = field(default_factory=dict)
    _frames: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=WINDOW + STRIDE - 1))
    _taken: int = 0

    def add(self, frame: np.ndarray) -> None:
        """Add the next frame (H, W, 3) uint8."""
        self._frames.append(frame)
        self._taken += 1
        begin = self._taken - WINDOW
        if begin >= 0 and begin % STRIDE == 0:
            frames = self._frames_from(begin)
            window = Window(begin, read_clip(frames), jerk(frames))
            self.windows.append(window)
            for word in awaited_words(self.schedule):
                if word not in self.delays and word.begin <= window.middle < word.end and word.is_shown(window.reading):
                    self.delays[word] = self._first_to_show(word) + HALF - word.begin

    def _first_to_show(self, word: Awaited) -> int:
        """Return where the first window that shows `word` begins; the last window read shows it, no one before did."""
        last = self._taken - WINDOW
        begins = range(max(last - STRIDE + 1, word.begin - HALF, 0), last)
        return begins.start + bisect_left(
            begins, True, key=lambda begin: word.is_shown(read_clip(self._frames_from(begin)))
        )

    def _frames_from(self, begin: int) -> np.ndarray:
        """Return the window (WINDOW, H, W, 3) that begins at frame `begin`, which must still be kept."""
        at = begin - self._taken + len(self._frames)
        return np.stack(list(self._frames)[at : at + WINDOW])

    def curves(self, window: int) -> dict[str, Curve]:
        """Return the curves of the metrics that have one; each of their points covers `window` frames."""
        points = dict(words_shown(self.windows, self.schedule))
        points["jerk"] = [(one.middle, one.jerk) for one in self.windows if not math.isnan(one.jerk)]
        if self._has_one_subject:
            points["second_color_kept"] = second_color_kept(self.windows)
        return {f"journey_{name}": _curve(some, window, self._taken) for name, some in points.items()}

    def numbers(self) -> dict[str, float]:
        """Return the metrics without a curve; those that cannot be measured are left out."""
        found: dict[str, float | None] = {"facing_flips": facing_flips(self.windows, self.schedule)}
        if self._has_one_subject:
            found["switches"] = switches(self.windows)
        numbers = {name: 100 * count / self._taken for name, count in found.items() if count is not None}
        delays = [
            self.delays.get(word, min(word.end, self._taken) - word.begin)
            for word in awaited_words(self.schedule)
            if any(word.begin <= window.middle < word.end for window in self.windows)
        ]
        if delays:
            numbers["prompt_delay"] = sum(delays) / len(delays)
        return {f"journey_{name}": value for name, value in numbers.items()}

    @property
    def _has_one_subject(self) -> bool:
        """Return whether all prompts name the same subject; another one may have another second colour."""
        return len({words.subject for _, words in self.schedule}) == 1


def journey_of(schedule: Sequence[tuple[int, str]], height: int, width: int) -> Journey | None:
    """Return a reader for a video, or None if a prompt is no caption of the grammar or the frames are too small.

    Args:
        schedule: pairs of a frame and the prompt from that frame on; may be empty.
        height, width: of the frames, in pixels.
    """
    try:
        words = [(begin, parse_caption(caption)) for begin, caption in schedule]
    except ValueError:
        return None
    if not words or not is_readable(height, width):
        return None
    return Journey([(begin, replace(said, pace=_named_pace(said))) for begin, said in words])


def _named_pace(words: Words) -> str | None:
    """Return the pace if a caption mentions it; none mentions "steadily"."""
    return None if words.pace == "steadily" else words.pace


def awaited_words(schedule: Sequence[tuple[int, Words]]) -> list[Awaited]:
    """Return every word that a prompt names and the prompt before does not."""
    awaited = []
    for at, (begin, words) in enumerate(schedule[1:], 1):
        for name in AWAITED:
            word = getattr(words, name)
            if word not in (None, getattr(schedule[at - 1][1], name)):
                ends = (frame for frame, later in schedule[at:] if getattr(later, name) != word)
                awaited.append(Awaited(name, words, begin, next(ends, math.inf)))
    return awaited


def jerk(frames: np.ndarray) -> float:
    """Return the mean absolute third difference of the scroll position, in pixels a frame^3; NaN where it is not read.

    It is 0 at a constant speed, and 4 v if every other frame repeats the one before, at v pixels a frame on average.

    Args:
        frames: (T, H, W, 3) uint8, T >= 4.
    """
    thirds = np.abs(np.diff(scroll_steps(frames), 2)) * frames.shape[1] / 128
    known = thirds[~np.isnan(thirds)]
    return float(known.mean()) if len(known) else math.nan


def words_shown(windows: Iterable[Window], schedule: Sequence[tuple[int, Words]]) -> Mapping[str, Points]:
    """Return for each word that prompts name, and for all of them at once, 1 or 0 for each window that shows it or not.

    Windows in which the prompt switches are left out.
    """
    points = defaultdict(list)
    for window in windows:
        if any(window.begin < switch < window.end for switch, _ in schedule):
            continue
        right = score(window.reading, in_force(schedule, window.begin))
        for name, is_right in (right | {"all_words": all(right.values())}).items():
            points[name].append((window.middle, float(is_right)))
    return points


def second_color_kept(windows: Iterable[Window]) -> Points:
    """Return for each window after the first one with a second colour whether it has the same, 1 or 0."""
    known = dropwhile(lambda window: window.reading.second is None, windows)
    first = next(known, None)
    return [(window.middle, float(window.reading.second == first.reading.second)) for window in known]


def switches(windows: Iterable[Window]) -> int | None:
    """Count changes of the second colour between windows in which it can be read; None if these are fewer than 2."""
    colors = [window.reading.second for window in windows if window.reading.second is not None]
    return sum(color != before for before, color in pairwise(colors)) if len(colors) > 1 else None


def facing_flips(windows: Iterable[Window], schedule: Sequence[tuple[int, Words]]) -> int | None:
    """Count changes of the facing between the windows in which it can be read; None if these are fewer than 2.

    When the schedule asks for another direction, the first change to it is no flip.
    """
    known = [window for window in windows if window.reading.facing is not None]
    turns = [word for word in awaited_words(schedule) if word.name == "direction"]
    flips, made = 0, set()
    for before, window in zip([None, *known], known, strict=False):
        facing = window.reading.facing
        asked = {turn for turn in turns if turn.begin < window.end <= turn.end and turn.words.direction == facing}
        changed = before is not None and before.reading.facing != facing
        flips += changed and not asked - made
        made |= asked
    return flips if len(known) > 1 else None


def _curve(points: Points, window: int, frames: int) -> Curve:
    """Return the means of the points in each `window` of a video's `frames`."""
    values = [[] for _ in range(0, frames, window)]
    for at, value in points:
        values[at // window].append(value)
    means = (sum(some) / len(some) if some else math.nan for some in values)
    return Curve(window, tuple(means), tuple(map(len, values)))
