"""Say at which noise level each slot of the queue is before every step: a sampling scheme as a matrix of integers.

Diffusion Forcing (Chen et al. 2024, arXiv 2407.01392) describes sampling so. Here the matrix is periodic: at the end of
a period some frames leave, all others move up, and the first row is reached again.
"""

from dataclasses import dataclass
from fractions import Fraction

from lvdm.diffusion.schedule import CLEAN, TRAIN_STEPS

PLANS = "fifo, plateau:WIDTH, pyramid:SLOPE, autoregressive:CONTEXT and full"


@dataclass(frozen=True)
class Plan:
    """Hold a period of noise levels for the S slots of a queue.

    A window of the U-Net reads `window` slots; the next one begins `stride` slots further. Each writes its last
    `stride` slots, so that the first `window - stride` slots of the queue are only read: they are clean. A slot whose
    level does not fall in a step is only read, too.

    Args:
        name: as `--plan` gives it.
        rows: (R + 1, S), the levels before each of the R steps of a period, and after the last one; CLEAN to
            `levels - 1`. From row to row a level falls by one or stays.
        leaving: k, how many frames are handed out at the end of a period, from the foremost slot that windows write.
        levels: N, how many noise levels there are. Frames come in at level N - 1, or are given and clean.
        window, stride: slots.

    Raises:
        ValueError: the rows do not repeat, a level rises, a frame leaves that is not clean, or windows do not fit.
    """

    name: str
    rows: tuple[tuple[int, ...], ...]
    leaving: int
    levels: int
    window: int
    stride: int

    def __post_init__(self) -> None:
        if (fault := self._fault()) is not None:
            raise ValueError(f"--plan {self.name}: {fault}")

    def _fault(self) -> str | None:
        if len(self.rows) < 2:
            return "a period has no step"
        first, last, front = self.rows[0], self.rows[-1], self.front
        if front < 0 or self.slots < self.window or (self.slots - self.window) % self.stride:
            return f"windows of {self.window} slots, {self.stride} apart, do not cover {self.slots} slots"
        if any(len(row) != self.slots for row in self.rows):
            return "rows differ in length"
        for before, after in zip(self.rows, self.rows[1:], strict=False):
            if any(fall not in (0, 1) for fall in (high - low for high, low in zip(before, after, strict=True))):
                return f"a level rises, or falls by more than one, from {before} to {after}"
        if any(not CLEAN <= level < self.levels for row in self.rows for level in row):
            return f"a level is not from {CLEAN} to {self.levels - 1}"
        if any(level != CLEAN for level in (*first[:front], *last[: front + self.leaving])):
            return "a frame that leaves, or a slot in front of those that windows write, is not clean"
        if not 0 < self.leaving <= self.slots - front or first[: -self.leaving] != last[self.leaving :]:
            return f"the last row, moved by {self.leaving}, is not the first row"
        if any(level not in (CLEAN, self.levels - 1) for level in first[-self.leaving :]):
            return f"a frame comes in that is neither noise (level {self.levels - 1}) nor clean"
        return None

    def __str__(self) -> str:
        """Return a small table: what the plan is, and the levels row by row."""
        rows = [" ".join("." if level == CLEAN else str(level) for level in row) for row in self.rows]
        unit = "frame leaves" if self.leaving == 1 else "frames leave"
        return "\n".join(
            [
                f"{self.name}: {self.slots} slots, {self.levels} noise levels, windows of {self.window} slots that "
                f"write {self.stride}; {self.steps} steps a period, after which {self.leaving} {unit}; "
                f"{self.forwards:g} windows a frame",
                *(f"  before step {number}: {row}" for number, row in enumerate(rows[:-1], 1)),
                f"  at the end:    {rows[-1]}",
            ]
        )

    @property
    def slots(self) -> int:
        """How many slots there are, clean ones in front included."""
        return len(self.rows[0])

    @property
    def front(self) -> int:
        """How many slots in front no window writes."""
        return self.window - self.stride

    @property
    def steps(self) -> int:
        """How many steps a period has."""
        return len(self.rows) - 1

    @property
    def forwards(self) -> float:
        """How many windows the U-Net computes for a frame of the video."""
        return self.steps * (1 + (self.slots - self.window) // self.stride) / self.leaving

    @property
    def in_blocks(self) -> bool:
        """Whether all frames that windows write leave together: new ones follow a clip instead of rising from it."""
        return self.leaving == self.slots - self.front

    @property
    def start(self) -> int:
        """The frame of the video that the foremost written slot begins with, where a clip of `window` frames begins it.

        Negative numbers are warm-up; frames from 0 up to it are those of the clip.
        """
        return self.window if self.in_blocks else self.window - (self.slots - self.front)


def fifo(window: int, levels: int, *, lookahead: bool) -> Plan:
    """Return FIFO-Diffusion's diagonal (Kim et al. 2024, arXiv 2405.11473): levels rise by one a slot.

    With 4 levels the rows are 0 1 2 3 and, a step later, . 0 1 2 (a point is clean).

    Args:
        window: f, frames that the U-Net reads.
        levels: N, as many as slots.
        lookahead: whether windows write half of what they read, instead of all.
    """
    return _staircase("fifo", window, levels, lookahead=lookahead)


def plateau(window: int, levels: int, width: int, *, lookahead: bool) -> Plan:
    """Return a diagonal of steps that are `width` slots wide, as Rolling Forcing has (arXiv 2509.25161).

    With 3 levels and width 2 the rows are 0 0 1 1 2 2 and . . 0 0 1 1, and 2 frames leave.
    """
    if width < 1 or window % width:
        raise ValueError(f"--plan plateau:{width}: the width must divide the window of {window} frames")
    return _staircase(f"plateau:{width}", window, levels, width=width, lookahead=lookahead)


def pyramid(window: int, slope: Fraction, *, lookahead: bool) -> Plan:
    """Return Diffusion Forcing's pyramid over one window: `slope` frames a level, a whole number or one over one.

    Slope 1/2 makes two steps a frame: with 3 slots, 1 3 5, then 0 2 4, then . 1 3.
    """
    name = f"pyramid:{float(slope):g}"
    if slope.numerator == 1:
        return _staircase(name, window, window * slope.denominator, steps=slope.denominator, lookahead=lookahead)
    if slope.denominator == 1 and window % slope == 0:
        return _staircase(name, window, window // int(slope), width=int(slope), lookahead=lookahead)
    raise ValueError(
        f"--plan {name}: frames a level must be a whole number that divides the window of {window} frames, or 1 "
        "divided by a whole number (0.5, 0.25, ...)"
    )


def autoregressive(window: int, context: int, levels: int) -> Plan:
    """Return Video LDM's prediction (Blattmann et al. 2023, arXiv 2304.08818): blocks that follow clean frames.

    With a window of 4 frames, 2 of them context, and 3 levels: . . 2 2, then . . 1 1, then . . 0 0, then all clean.
    """
    if not 0 <= context < window:
        raise ValueError(
            f"--plan autoregressive:{context}: the context must be from 0 to {window - 1} frames, as the window has "
            f"{window}"
        )
    return _blocks(f"autoregressive:{context}", window, context, levels)


def full(window: int, levels: int) -> Plan:
    """Return the plan of a clip by itself: all frames at one level. The base clip is made so."""
    return _blocks("full", window, 0, levels)


def between(window: int, every: int, levels: int, *, known: int = 1) -> Plan:
    """Return Video LDM's temporal interpolation: frames 0, `every`, 2 `every`, ... are given, the others made.

    With a window of 5 frames and every 2nd given: . 2 . 2 ., then . 1 . 1 ., then . 0 . 0 ., then all clean.

    Args:
        window: as many frames that its last one is given: a multiple of `every`, and 1.
        known: how many in front are clean already. All behind them leave.
    """
    if every < 2 or window < every + 1 or (window - 1) % every or not 0 < known < window:
        raise ValueError(f"--interpolate {every}: a window of {window} frames does not begin and end with given ones")
    made = [slot >= known and slot % every > 0 for slot in range(window)]
    rows = tuple(tuple(level if new else CLEAN for new in made) for level in range(levels - 1, CLEAN - 1, -1))
    return Plan(f"between:{every}", rows, window - known, levels, window, window)


def _staircase(name: str, window: int, levels: int, *, width: int = 1, steps: int = 1, lookahead: bool) -> Plan:
    """Return a plan whose levels rise by `steps` every `width` slots, and fall by as many in a period."""
    written = width * levels // steps
    stride = min(window // 2 if lookahead else window, written)
    front = (CLEAN,) * (window - stride)
    if written % stride:
        raise ValueError(
            f"--plan {name}: a queue of {written} slots cannot be cut into windows that write {stride} slots each; "
            f"the number of noise levels must make it a multiple of {stride}"
        )
    rows = (
        front + tuple(slot // width * steps + steps - 1 - step for slot in range(written)) for step in range(steps + 1)
    )
    return Plan(name, tuple(rows), width, levels, window, stride)


def _blocks(name: str, window: int, context: int, levels: int) -> Plan:
    rows = ((CLEAN,) * context + (level,) * (window - context) for level in range(levels - 1, CLEAN - 1, -1))
    return Plan(name, tuple(rows), window - context, levels, window, window - context)


def make_plan(text: str, *, window: int, lookahead: bool, slots: int, timesteps: int | None = None) -> Plan:
    """Return the plan that `--plan` names.

    Args:
        text: its kind, and behind a colon its number: fifo, plateau:4, pyramid:0.5, autoregressive:8 or full.
        window: f, frames that the U-Net reads.
        lookahead: whether windows write half of what they read; matters for fifo, plateau and pyramid.
        slots: f n, slots of the queue of fifo and plateau, and noise levels of autoregressive and full.
        timesteps: how many noise levels there are, if `--timesteps` says it.

    Raises:
        ValueError: the plan is unknown, or its number does not fit.
    """
    kind, number = parse_plan(text)
    levels = timesteps or slots
    if kind == "fifo":
        return fifo(window, levels, lookahead=lookahead)
    if kind == "plateau":
        return plateau(window, timesteps or slots // int(number), int(number), lookahead=lookahead)
    if kind == "autoregressive":
        return autoregressive(window, int(number), levels)
    if kind == "full":
        return full(window, levels)
    plan = pyramid(window, number, lookahead=lookahead)
    if timesteps not in (None, plan.levels):
        raise ValueError(
            f"--plan {text} --timesteps: the pyramid over {window} frames has {plan.levels} noise levels, and "
            f"{timesteps} timesteps are given"
        )
    return plan


def parse_plan(text: str) -> tuple[str, Fraction]:
    """Return kind and number of what `--plan` is; the number is 0 where the kind has none.

    Raises:
        ValueError: the kind is unknown, or its number is missing, superfluous, too small or no number.
    """
    kind, _, number = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"--plan {text!r}: allowed are {PLANS}")
    if KINDS[kind] is None:
        if text != kind:
            raise ValueError(f"--plan {text!r}: {kind} has no number; allowed are {PLANS}")
        return kind, Fraction(0)
    lowest, what = KINDS[kind]
    try:
        value = Fraction(number)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if value < lowest or (kind != "pyramid" and value.denominator > 1):
        given = f"{number!r} behind the colon" if number else "the number behind a colon"
        raise ValueError(f"--plan {text!r}: {given} must be {what}")
    return kind, value


# Kinds of plans, with the smallest number that each takes, and that in words; None for those that take none.
KINDS: dict[str, tuple[Fraction, str] | None] = {
    "fifo": None,
    "plateau": (Fraction(1), "a whole number from 1, the slots that share a noise level"),
    "pyramid": (Fraction(1, TRAIN_STEPS), f"a number from 1/{TRAIN_STEPS}, like 0.5 or 2: frames a noise level"),
    "autoregressive": (Fraction(0), "a whole number from 0, the frames that are context"),
    "full": None,
}
