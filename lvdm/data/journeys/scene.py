"""What a journey shows: words that its caption may say, a look that no caption says, and how both change with time.

Needs no torch, which takes 500 MB: a program that only looks whether a prompt is such a caption does without.
"""

from dataclasses import dataclass, replace
from itertools import pairwise, product

COLORS = {  # RGB, 0-255, of the main colour
    "red": (222, 40, 44),
    "yellow": (250, 208, 40),
    "green": (40, 172, 72),
    "blue": (48, 92, 236),
    "purple": (152, 60, 200),
    "white": (242, 242, 238),
}
SECOND_COLORS = COLORS | {"black": (38, 38, 44)}
PLACES_OF = {  # which places a subject travels through
    "car": ("city", "desert", "forest"),
    "bus": ("city", "desert", "forest"),
    "sailing boat": ("sea",),
    "aeroplane": ("sky",),
    "person": ("city", "desert", "forest"),
}
SUBJECTS = tuple(PLACES_OF)
PLACES = ("city", "desert", "forest", "sea", "sky")
TIMES = ("day", "sunset", "night")
DIRECTIONS = ("left", "right")
PACES = {"standing still": 0.0, "slowly": 1.5, "steadily": 3.5, "fast": 7.0}  # units a frame; 128 units are a height
SKINS = ((250, 214, 184), (228, 178, 136), (176, 120, 80), (112, 72, 48))
HAIRS = ((40, 32, 30), (108, 64, 34), (214, 166, 84), (150, 60, 34), (168, 168, 172))
DETAILS = 3  # a subject comes in so many variants
CHANGE_FRAMES = 16  # how long a change of place or time takes


@dataclass(frozen=True)
class Words:
    """What a caption says of a frame. None: it does not say. `pace` is a key of PACES; "steadily" is left unspoken."""

    subject: str
    color: str | None
    direction: str | None
    pace: str
    place: str | None
    time: str | None

    @property
    def held_out(self) -> bool:
        """One combination of subject, colour, place and time in five is never trained on.

        Every pair of those words still occurs in training.
        """
        choices = (SUBJECTS, tuple(COLORS), PLACES, TIMES)
        said = (self.subject, self.color, self.place, self.time)
        return sum(names.index(word) for names, word in zip(choices, said, strict=True)) % 5 == 0


@dataclass(frozen=True)
class Look:
    """What no caption says, and what can only be kept by looking at other frames.

    `second` is a key of SECOND_COLORS (of the roof, stripe, sail, tail or trousers), `skin` and `hair` index SKINS and
    HAIRS, `detail` is below DETAILS, `size` is relative to 1.
    """

    second: str
    skin: int = 0
    hair: int = 0
    detail: int = 0
    size: float = 1.0


@dataclass(frozen=True)
class Change:
    """From frame `begin` on, within CHANGE_FRAMES frames, the place or the time becomes another."""

    begin: int
    place: str | None = None
    time: str | None = None

    def progress(self, frame: int) -> float:
        """How much of the change has happened at `frame`: 0 before, 1 after."""
        return min(max((frame - self.begin) / CHANGE_FRAMES, 0.0), 1.0)


@dataclass(frozen=True)
class Scene:
    """A journey without beginning or end: every frame is a function of the scene and of the frame's number.

    `words` hold until the first of `changes`, which are in order and do not overlap. `seed` decides the scenery.

    Raises:
        ValueError: a word that the world does not have, a subject where it cannot be, or changes out of order.
    """

    words: Words
    look: Look
    seed: int = 0
    changes: tuple[Change, ...] = ()

    def __post_init__(self):
        check_words(self.words)
        if self.look.second not in SECOND_COLORS or self.look.second == self.words.color:
            allowed = ", ".join(name for name in SECOND_COLORS if name != self.words.color)
            raise ValueError(f"second colour is {self.look.second!r}, allowed are {allowed}")
        for change, following in pairwise(self.changes):
            if following.begin < change.begin + CHANGE_FRAMES:
                raise ValueError(
                    f"changes begin at frames {change.begin} and {following.begin}, "
                    f"expected at least {CHANGE_FRAMES} frames between them"
                )
        for change in self.changes:
            check_words(changed(self.words, change))

    def words_at(self, frame: int) -> Words:
        """The words that are true of a frame; in the middle of a change the new ones begin to be."""
        words = self.words
        for change in self.changes:
            if change.progress(frame) >= 0.5:
                words = changed(words, change)
        return words

    def scroll(self, frame: int) -> float:
        """How far the subject has travelled, in units to the right; 0 at frame 0."""
        sign = 1 if self.words.direction == "right" else -1
        return sign * PACES[self.words.pace] * frame


def changed(words: Words, change: Change) -> Words:
    """Return what is true after a change."""
    return replace(words, place=change.place or words.place, time=change.time or words.time)


def check_words(words: Words) -> None:
    """ValueError unless every word is said and the world has it."""
    choices = {"subject": SUBJECTS, "color": COLORS, "direction": DIRECTIONS, "pace": PACES, "time": TIMES}
    for name, allowed in choices.items():
        if getattr(words, name) not in allowed:
            raise ValueError(f"{name} is {getattr(words, name)!r}, allowed are {', '.join(allowed)}")
    if words.place not in PLACES_OF[words.subject]:
        raise ValueError(
            f"place of a {words.subject} is {words.place!r}, allowed are {', '.join(PLACES_OF[words.subject])}"
        )
    if words.subject == "aeroplane" and words.pace == "standing still":
        raise ValueError("an aeroplane cannot stand still, allowed paces are slowly, steadily, fast")


def _possible(words: Words) -> bool:
    try:
        check_words(words)
    except ValueError:
        return False
    return True


ALL_WORDS = tuple(
    words
    for combination in product(SUBJECTS, COLORS, DIRECTIONS, PACES, PLACES, TIMES)
    if _possible(words := Words(*combination))
)
TRAINING_WORDS = tuple(words for words in ALL_WORDS if not words.held_out)
HELD_OUT_WORDS = tuple(words for words in ALL_WORDS if words.held_out)
