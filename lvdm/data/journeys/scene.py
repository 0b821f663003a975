"""Describe a journey: the words that its caption may say, the look that no caption says, and changes with time.

This module does not import torch, which takes 500 MB, so that programs can check cheaply whether a prompt is a caption.
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
PLACES_OF = {  # the places that each subject travels through
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
PACES = {"standing still": 0.0, "slowly": 1.5, "steadily": 3.5, "fast": 7.0}  # units per frame; a picture is 128 high
SKINS = ((250, 214, 184), (228, 178, 136), (176, 120, 80), (112, 72, 48))
HAIRS = ((40, 32, 30), (108, 64, 34), (214, 166, 84), (150, 60, 34), (168, 168, 172))
DETAILS = 3  # number of variants of each subject
CHANGE_FRAMES = 16  # duration of a change of place or time


@dataclass(frozen=True)
class Words:
    """The words of a caption; None for a word that the caption leaves out.

    Args:
        subject: one of SUBJECTS.
        color: a key of COLORS, the subject's main colour.
        direction: one of DIRECTIONS, in which the subject faces and travels.
        pace: a key of PACES. Captions do not mention "steadily".
        place: one of PLACES, and of the subject's PLACES_OF.
        time: one of TIMES.
    """

    subject: str
    color: str | None
    direction: str | None
    pace: str
    place: str | None
    time: str | None

    @property
    def held_out(self) -> bool:
        """Return whether subject, colour, place and time are one of the combinations that are never trained on.

        One combination in five is held out; every pair of words still occurs in training.
        """
        choices = (SUBJECTS, tuple(COLORS), PLACES, TIMES)
        said = (self.subject, self.color, self.place, self.time)
        return sum(names.index(word) for names, word in zip(choices, said, strict=True)) % 5 == 0


@dataclass(frozen=True)
class Look:
    """The appearance that no caption mentions, so that a model can keep it only by looking at other frames.

    Args:
        second: a key of SECOND_COLORS: the colour of the roof (car), stripe (bus), rear sail (sailing boat), tail
            (aeroplane) or trousers (person).
        skin: an index of SKINS; for cars and buses, it decides the colour of the hubs.
        hair: an index of HAIRS; for sailing boats, it decides the colour of the flag.
        detail: variant of the subject, below DETAILS.
        size: relative to 1.
    """

    second: str
    skin: int = 0
    hair: int = 0
    detail: int = 0
    size: float = 1.0


@dataclass(frozen=True)
class Change:
    """A change of place or time of day, which takes CHANGE_FRAMES frames.

    Args:
        begin: the frame at which the change starts.
        place: the new place; None keeps the old one.
        time: the new time of day; None keeps the old one.
    """

    begin: int
    place: str | None = None
    time: str | None = None

    def progress(self, frame: int) -> float:
        """Return how much of the change has happened at `frame`: 0 before it, 1 after it."""
        return min(max((frame - self.begin) / CHANGE_FRAMES, 0.0), 1.0)


@dataclass(frozen=True)
class Scene:
    """A journey without beginning or end: each frame depends only on the scene and the frame's number.

    Args:
        words: the words before the first change; none is None.
        look: the look, which never changes.
        seed: decides the scenery.
        changes: changes of place or time, in order and without overlap.

    Raises:
        ValueError: a word is unknown, the subject cannot be at the place, the second colour equals the main one, or
            changes overlap.
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
            check_words(words_after(self.words, change))

    def words_at(self, frame: int) -> Words:
        """Return the words that describe a frame; a change counts from its middle on."""
        words = self.words
        for change in self.changes:
            if change.progress(frame) >= 0.5:
                words = words_after(words, change)
        return words

    def scroll(self, frame: int) -> float:
        """Return how far the subject has travelled since frame 0, in units, positive to the right."""
        sign = 1 if self.words.direction == "right" else -1
        return sign * PACES[self.words.pace] * frame


def words_after(words: Words, change: Change) -> Words:
    """Return the words after a change."""
    return replace(words, place=change.place or words.place, time=change.time or words.time)


def check_words(words: Words) -> None:
    """Check that no word is None and that a scene with these words can be rendered.

    Raises:
        ValueError: a word is None or unknown, or the subject cannot be at the place or have the pace.
    """
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


def _is_possible(words: Words) -> bool:
    """Return whether a scene with these words can be rendered."""
    try:
        check_words(words)
    except ValueError:
        return False
    return True


ALL_WORDS = tuple(
    words
    for combination in product(SUBJECTS, COLORS, DIRECTIONS, PACES, PLACES, TIMES)
    if _is_possible(words := Words(*combination))
)
TRAINING_WORDS = tuple(words for words in ALL_WORDS if not words.held_out)
HELD_OUT_WORDS = tuple(words for words in ALL_WORDS if words.held_out)
