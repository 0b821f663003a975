"""Make the command line out of the settings that Options declares."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from lvdm.cli.command import Parser
from lvdm.pipeline.config_facts import ConfigFacts, config_facts
from lvdm.pipeline.mode import Mode
from lvdm.pipeline.options import Options
from lvdm.pipeline.resolve import embedded_config, resolved
from lvdm.pipeline.settings import Range, Setting, settings_of, value_type

USAGE = "python videocrafter_main.py [--prompt TEXT | --prompt_file FILE] [flags]"
DESCRIPTION = """\
Make videos of any length from a 16-frame model, by FIFO-Diffusion.

examples:
  python videocrafter_main.py --prompt "a red circle moving right on a black background"
  python videocrafter_main.py --mode i2v --image prompts/pictures/000_red_circle.png --prompt "a red circle pulsing"
  python videocrafter_main.py --prompt_file prompts/shapes.txt --new_video_length 200 --experiment long --use_mp4
"""
METAVARS = {int: "N", float: "X", str: "TEXT", Path: "FILE", Mode: "MODE"}
NUMBERS = {int: "a whole number", float: "a number"}


def parse_args(argv: Sequence[str]) -> Options:
    """Parse `argv` into checked Options.

    Raises:
        ValueError, FileNotFoundError: a flag that cannot be read, or a value that does not fit; one line that names the
            flag and the value.
    """
    options = resolved(Options(**vars(build_parser(_config_asked_for(argv)).parse_args(argv))))
    if not options.prompt and options.prompt_file is None:
        raise ValueError(
            f"--prompt or --prompt_file is missing: give one, as --config {str(options.config)!r} has no "
            "inference.prompt_file"
        )
    return options


def build_parser(config: Path) -> Parser:
    """Return a parser with a flag for each field of Options. Its help shows the defaults of `config`.

    Flags that are not given leave no trace in what it parses: Options knows its own defaults.
    """
    epilog = f"Defaults marked 'from the config' come from {config}; --config FILE --help shows those of another one."
    parser = Parser(DESCRIPTION, usage=USAGE, epilog=epilog, argument_default=argparse.SUPPRESS)
    facts = None
    with suppress(ValueError, OSError):  # said when the config is needed
        facts = config_facts(config)
    kinds = get_type_hints(Options)
    settings = settings_of(Options)
    groups = {name: parser.add_argument_group(name) for name in dict.fromkeys(each.group for each in settings.values())}
    exclusive: dict[str, Any] = {}
    for declared in fields(Options):
        setting = settings[declared.name]
        group = groups[setting.group]
        if setting.exclusive:
            if setting.exclusive not in exclusive:
                exclusive[setting.exclusive] = group.add_mutually_exclusive_group()
            group = exclusive[setting.exclusive]
        default = _default_in_words(declared.name, setting, declared.default, facts)
        _add_flag(group, declared.name, setting, kinds[declared.name], f"{setting.help} (default: {default})")
        if setting.shorthand:
            flag, values = setting.shorthand
            words = f"the same as --{declared.name} {' '.join(values)}"
            group.add_argument(flag, dest=declared.name, action="store_const", const=tuple(values), help=words)
    return parser


def _add_flag(group: Any, name: str, setting: Setting, kind: Any, words: str) -> None:
    flags = [f"--{name}", *([setting.short] if setting.short else [])]
    words = words.replace("%", "%%")
    single = value_type(Options, name)
    if single is bool:
        action = argparse.BooleanOptionalAction if setting.negatable else "store_true"
        group.add_argument(*flags, action=action, help=words)
        return
    several = get_origin(kind) is tuple
    metavar = "{" + ",".join(setting.choices) + "}" if setting.choices else setting.metavar or METAVARS[single]
    read = str if single is Mode else _reader(single, setting)
    if setting.repeated:
        group.add_argument(*flags, action=_Append, type=read, metavar=metavar, help=words)
    elif setting.separator:
        metavar = setting.separator.join([metavar, metavar, "..."])
        group.add_argument(*flags, type=read, metavar=metavar, help=words)
    elif several:
        group.add_argument(*flags, nargs="+", action=_AsTuple, type=read, metavar=metavar, help=words)
    else:
        group.add_argument(*flags, type=read, metavar=metavar, help=words)


def _reader(kind: type, setting: Setting) -> Callable[[str], Any]:
    """Return what reads one word of the command line as a value, or as several of them with a separator between."""
    if kind not in NUMBERS:
        return kind
    bounds = f" {setting.check.bounds}" if isinstance(setting.check, Range) else ""

    def read(word: str) -> Any:
        try:
            if setting.separator:
                return tuple(kind(part) for part in word.split(setting.separator))
            return word if word in setting.words else kind(word)
        except ValueError:
            allowed = [NUMBERS[kind] + bounds, *setting.words]
            several = f", or several with '{setting.separator}' between" if setting.separator else ""
            raise argparse.ArgumentTypeError(f"{word!r} is not {' or '.join(allowed)}{several}") from None

    return read


class _AsTuple(argparse.Action):
    """Store the values as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, tuple(values))


class _Append(argparse.Action):
    """Add the value to a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), values))


def _default_in_words(name: str, setting: Setting, default: Any, facts: ConfigFacts | None) -> str:
    value = facts.defaults.get(name) if facts else None
    if value is not None:
        source = "from the config" if name in facts.said else setting.default_help
        return f"{_in_words(value)}, {source}" if source else _in_words(value)
    if setting.from_config and setting.default_help is None:
        return "from the config"
    if setting.default_help is not None:
        return setting.default_help
    return _in_words(default)


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _config_asked_for(argv: Sequence[str]) -> Path:
    """Return the config whose defaults the help shall show: the one that is named, or the one of the mode."""
    first = Parser(None, argument_default=None, add_help=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--mode", settings_of(Options)["mode"].short, type=Mode.parse, default=Options.mode)
    with suppress(ValueError):  # said by the parser that knows all flags
        known, _ = first.parse_known_args(argv)
        return known.config or embedded_config(known.mode)
    return embedded_config(Options.mode)
