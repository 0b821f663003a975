"""Draw random scenes for training and for tests. This module does not import torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, replace
from functools import lru_cache
from random import Random

from lvdm.data.journeys.scene import (
    ALL_WORDS,
    CHANGE_FRAMES,
    DETAILS,
    HAIRS,
    HELD_OUT_WORDS,
    PLACES_OF,
    SECOND_COLORS,
    SKINS,
    SUBJECTS,
    TIMES,
    TRAINING_WORDS,
    Change,
    Look,
    Scene,
    Words,
)

SIZES = 0.94, 1.05  # smallest and largest size of a subject
SPLITS = {"training": TRAINING_WORDS, "held_out": HELD_OUT_WORDS, "all": ALL_WORDS}


@lru_cache
def _words_of(split: str, subject: str) -> tuple[Words, ...]:
    """Return the combinations of words of a split that have this subject."""
    return tuple(words for words in SPLITS[split] if words.subject == subject)


def random_scene(random: Random, split: str = "training") -> Scene:
    """Return a random scene of a split, without changes. All subjects are equally likely."""
    words = random.choice(_words_of(split, random.choice(SUBJECTS)))
    return Scene(words, random_look(random, words), seed=random.randrange(1 << 32))


def random_look(random: Random, words: Words) -> Look:
    """Return a random look; its second colour differs from the colour in `words`."""
    return Look(
        second=random.choice([name for name in SECOND_COLORS if name != words.color]),
        skin=random.randrange(len(SKINS)),
        hair=random.randrange(len(HAIRS)),
        detail=random.randrange(DETAILS),
        size=random.uniform(*SIZES),
    )


def varied_words(count: int, split: str = "held_out") -> list[Words]:
    """Return `count` combinations of words in which the alternatives of a word are about equally frequent.

    The result depends only on the arguments.

    Raises:
        ValueError: `count` is below 1, or the split has fewer combinations.
    """
    choices = list(SPLITS[split])
    if not 1 <= count <= len(choices):
        raise ValueError(f"count is {count}, expected 1 to {len(choices)}, which {split!r} has")
    Random(0).shuffle(choices)
    chosen: list[Words] = []
    used: Counter[str] = Counter()
    while len(chosen) < count:
        best = min(choices, key=lambda words: sum(used[word] for word in astuple(words)))
        choices.remove(best)
        chosen.append(best)
        used.update(astuple(best))
    return chosen


def with_change(scene: Scene, random: Random, begin: int, count: int) -> Scene:
    """Return `scene` with one change of time or place that is partly visible in a clip.

    The place changes only if the subject moves and travels through more than one place. The new words are never a
    combination that is held out.

    Args:
        scene: a scene without changes.
        random: draws the change and the frame at which it begins.
        begin: number of the clip's first frame.
        count: number of the clip's frames.
    """
    words = scene.words
    places = [place for place in PLACES_OF[words.subject] if place != words.place]
    places = [place for place in places if not replace(words, place=place).held_out]
    times = [time for time in TIMES if time != words.time and not replace(words, time=time).held_out]
    when = begin + random.randrange(-CHANGE_FRAMES * 3 // 4, max(1, count - CHANGE_FRAMES // 4))
    if places and words.pace != "standing still" and random.random() < 0.5:
        return replace(scene, changes=(Change(when, place=random.choice(places)),))
    return replace(scene, changes=(Change(when, time=random.choice(times)),))


def with_fewer_words(versions: Sequence[Words], random: Random, dropout: float) -> list[Words]:
    """Return `versions` of words with each of colour, direction, place and time left out with probability `dropout`.

    The same words are left out in all versions: they become None.
    """
    dropped = {name: None for name in ("color", "direction", "place", "time") if random.random() < dropout}
    return [replace(words, **dropped) for words in versions]
