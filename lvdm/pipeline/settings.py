"""Declare a setting once: its help, its check and what it affects.

The parser, its help, the identity of a run, the key of its base clip and its record derive from that.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Flag, auto
from itertools import pairwise
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from lvdm.diffusion.schedule import TRAIN_STEPS
from lvdm.runtime.errors import shortened

GENERATE, ABLATION = "generate", "ablation"


class Affects(Flag):
    """Say what a setting changes.

    A run goes on only with the same values of what affects pixels or files. A base clip is used again only with the
    same values of what affects the base clip. What affects nothing is not compared when a run goes on.
    """

    NOTHING = 0
    FILES = auto()
    PIXELS = auto()
    BASE_CLIP = auto()
    SAMPLING = PIXELS | BASE_CLIP


@dataclass(frozen=True)
class Range:
    """Check that a number is from `lowest` to `highest`; None is no bound. `hint` ends the message."""

    lowest: float | None = None
    highest: float | None = None
    hint: str = ""

    def __call__(self, flag: str, value: float) -> None:
        """Raise ValueError, with the flag's name and the value, for a number outside of the range (or NaN)."""
        low = -math.inf if self.lowest is None else self.lowest
        high = math.inf if self.highest is None else self.highest
        if not low <= value <= high:
            raise ValueError(f"{flag} {value}: must be {self.bounds}{self.hint}")

    @property
    def bounds(self) -> str:
        """The range in words: "at least 1"."""
        if self.lowest is None:
            return f"at most {self.highest}"
        return f"at least {self.lowest}" if self.highest is None else f"from {self.lowest} to {self.highest}"


def finite(flag: str, value: float) -> None:
    """Raise ValueError for NaN and infinity."""
    if not math.isfinite(value):
        raise ValueError(f"{flag} {value}: must be a finite number")


def falling_timesteps(flag: str, timesteps: tuple[int, ...]) -> None:
    """Raise ValueError for timesteps that do not fall, or that no model knows."""
    falls = all(high > low for high, low in pairwise(timesteps))
    if not timesteps or not falls or timesteps[-1] < 0 or timesteps[0] >= TRAIN_STEPS:
        given = ",".join(map(str, timesteps))
        raise ValueError(f"{flag} {given}: must be one or more falling numbers from {TRAIN_STEPS - 1} to 0")


@dataclass(frozen=True)
class Setting:
    """Describe a flag of the command line and field of Options.

    Args:
        help: what it does, in one line, with the unit.
        group: the heading that it stands under in `--help`.
        affects: what changes with it. Where a new setting affects pixels or files, let it not apply at its default
            (`applies`): the states of earlier versions lack it, and videos begun with them could not go on.
        short: a second, shorter flag.
        choices: the allowed values.
        words: values that are allowed beside numbers.
        separator: between values that are given as one word.
        check: raises ValueError for a value that is not allowed.
        from_config: whether the config's `inference:` section may say the default.
        fallback: the default where it may and does not.
        set_by: which of GENERATE and ABLATION set it themselves or have no use for it, so that their users cannot.
        metavar: what stands for the value in `--help`; by default a word for its type.
        default_help: the default in words, where its value says too little.
        negatable: whether a switch has a --no- form too.
        exclusive: flags with the same word here cannot be given together.
        repeated: whether the flag may be given several times, once for each value; otherwise it takes them all at once.
        shorthand: another flag, without a value, and the value of this setting that it stands for.
        applies: whether the setting matters for (options, prompt); otherwise its value is no part of an identity.
        identity: what stands for the value in an identity.
        content: what of the file that is named counts for the identity; its name does not.
    """

    help: str
    group: str
    affects: Affects
    short: str | None = None
    choices: Sequence[str] | None = None
    words: Sequence[str] = ()
    separator: str | None = None
    check: Callable[[str, Any], None] | None = None
    from_config: bool = False
    fallback: Any = None
    set_by: Sequence[str] = ()
    metavar: str | None = None
    default_help: str | None = None
    negatable: bool = False
    exclusive: str | None = None
    repeated: bool = False
    shorthand: tuple[str, Sequence[str]] | None = None
    applies: Callable[[Any, Any], bool] | None = None
    identity: Callable[[Any], object] | None = None
    content: str | None = None


def declare(default: Any, setting: Setting) -> Any:
    """Return a dataclass field with a default that carries `setting`."""
    return field(default=default, metadata={"setting": setting})


def setting_of(declared: Field) -> Setting:
    """Return the setting of a field; TypeError if it was declared without one."""
    if "setting" not in declared.metadata or declared.default is MISSING:
        raise TypeError(f"Options.{declared.name}: say what it affects, with `declare(default, Setting(...))`")
    return declared.metadata["setting"]


def settings_of(options: Any) -> dict[str, Setting]:
    """Return the settings of a dataclass, or of an instance of it, by the names of their fields."""
    return {declared.name: setting_of(declared) for declared in fields(options)}


def value_type(options: type, name: str) -> type:
    """Return the type of one value of a setting: int for `int | None`, str for `tuple[str, ...] | None`."""
    kind = get_type_hints(options)[name]
    while isinstance(kind, UnionType) or get_origin(kind) is tuple:
        kind = next(each for each in get_args(kind) if each not in (type(None), Ellipsis))
    return kind


def check_each(options: Any) -> None:
    """Raise ValueError, with the flag and the value, for the first setting whose value is not allowed by itself."""
    for name, setting in settings_of(options).items():
        value = getattr(options, name)
        if value is None or (isinstance(value, str) and value in setting.words):
            continue
        values = value if isinstance(value, tuple) else (value,)
        kind = value_type(type(options), name)
        if wrong := [each for each in values if not _is_a(each, kind)]:
            given = shortened(repr(wrong[0]))
            raise ValueError(f"--{name} {given}: expected {kind.__name__}, got {type(wrong[0]).__name__}")
        if setting.choices and (wrong := [each for each in values if each not in setting.choices]):
            given = shortened(repr(wrong[0]))
            raise ValueError(f"--{name} {given}: allowed are {', '.join(setting.choices)}")
        if setting.check:
            setting.check(f"--{name}", value)


def _is_a(value: Any, kind: type) -> bool:
    """Return whether a value has a type; an int is a float, too, but a bool is no number."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def identity_of(options: Any, prompt: Any, contents: Mapping[str, str], *, affects: Affects) -> dict[str, object]:
    """Return the values, by flag, of all settings that affect any of `affects` for `prompt`.

    contents: digests, by the names of settings, of what is identified by its content.
    """
    values = {}
    for name, setting in settings_of(options).items():
        if not setting.affects & affects:
            continue
        flag = f"--{name} ({setting.content})" if setting.content else f"--{name}"
        value = contents.get(name) if setting.content else getattr(options, name)
        if setting.applies and not setting.applies(options, prompt):
            value = None
        values[flag] = setting.identity(value) if setting.identity and value is not None else value
    return values
