"""Turn the words of a journey into an English caption, and a caption back into its words. The grammar is

    a {color} {car | bus | sailing boat | aeroplane}  or  a person in {color}
    {driving | sailing | flying | walking} [slowly | fast] [to the {left | right}]
    or  standing still [and facing {left | right}]
    [through a {city | desert | forest} | on the sea | through the sky]  [by day | at sunset | at night]

The parts in brackets and the colour may be left out. This module does not import torch.
"""

import re

from lvdm.data.journeys.scene import COLORS, DIRECTIONS, PLACES_OF, SUBJECTS, Words

VERBS = {"car": "driving", "bus": "driving", "sailing boat": "sailing", "aeroplane": "flying", "person": "walking"}
TIME_PHRASES = {"day": "by day", "sunset": "at sunset", "night": "at night"}
EXAMPLE = "a red car driving slowly to the left through a city at night"


def _place_phrase(place: str, *, moving: bool) -> str:
    """Return a place with its preposition and article, such as "through a city"."""
    if place == "sea":
        return "on the sea"
    return f"{'through' if moving else 'in'} {'the' if place == 'sky' else 'a'} {place}"


def caption_of(words: Words) -> str:
    """Return the caption of `words`; words that are None are left out."""
    color = words.color or ""
    if words.subject == "person":
        thing = f"a person in {color}" if color else "a person"
    else:
        thing = f"a {color} {words.subject}" if color else f"{_article(words.subject)} {words.subject}"
    moving = words.pace != "standing still"
    if moving:
        pace = "" if words.pace == "steadily" else words.pace
        action = [VERBS[words.subject], pace, f"to the {words.direction}" if words.direction else ""]
    else:
        action = ["standing still", f"and facing {words.direction}" if words.direction else ""]
    place = _place_phrase(words.place, moving=moving) if words.place else ""
    time = TIME_PHRASES[words.time] if words.time else ""
    return " ".join(part for part in (thing, *action, place, time) if part)


def _article(noun: str) -> str:
    """Return the indefinite article of a noun."""
    return "an" if noun[0] in "aeiou" else "a"


def parse_caption(caption: str) -> Words:
    """Return the words of a caption. Words that it leaves out are None, except the pace, which is "steadily" then.

    Raises:
        ValueError: the caption does not belong to the grammar.
    """
    match = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    if match is None:
        raise ValueError(f"{caption!r} is not a caption of the journeys grammar; an example: {EXAMPLE!r}")
    said = {name.rstrip("_0123456789"): word for name, word in match.groupdict().items() if word}
    subject = said.get("thing", "person")
    pace = "standing still" if "still" in said else said.get("pace", "steadily")
    place = said.get("place")
    time = {phrase: time for time, phrase in TIME_PHRASES.items()}.get(said.get("time"))
    words = Words(subject, said.get("color"), said.get("direction"), pace, place, time)
    if (place is not None and place not in PLACES_OF[subject]) or caption_of(words) != match.string:
        raise ValueError(f"{caption!r} is not a caption of the journeys grammar; an example: {EXAMPLE!r}")
    return words


def _choice(name: str, choices: tuple[str, ...] | dict) -> str:
    """Return a regular expression for one of `choices`, as a group with this name."""
    return f"(?P<{name}>{'|'.join(choices)})"


_CAPTION = re.compile(
    f"(?:an? (?:{_choice('color_1', COLORS)} )?{_choice('thing', SUBJECTS[:-1])}"
    f"|a person(?: in {_choice('color_2', COLORS)})?)"
    f" (?:(?P<still>standing still)(?: and facing {_choice('direction_1', DIRECTIONS)})?"
    f"|(?:{'|'.join(sorted(set(VERBS.values())))})(?: {_choice('pace', ('slowly', 'fast'))})?"
    f"(?: to the {_choice('direction_2', DIRECTIONS)})?)"
    f"(?: (?:through|in|on) (?:a|the) {_choice('place', ('city', 'desert', 'forest', 'sea', 'sky'))})?"
    f"(?: {_choice('time', tuple(TIME_PHRASES.values()))})?"
)
