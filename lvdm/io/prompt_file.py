"""Read prompt files.

There are two forms. Plain lines: one prompt a line, commas included, or `image;prompt` where pictures are wanted. A
table: a .csv whose first row names the columns: `prompt` and optionally `seed`, `new_video_length`, `experiment` and
`image`. Both are UTF-8, with or without a byte order mark, with any line ends; blank lines are ignored.
"""

import csv
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from lvdm.io.images import Picture
from lvdm.io.prompts import (
    NAMES_A_PICTURE,
    Prompt,
    number_repetitions,
    parse_integer,
    parse_prompt,
    place_in,
    safe_experiment,
)
from lvdm.runtime.errors import shortened

COLUMNS = ("prompt", "seed", "new_video_length", "experiment", "image")
PICTURE_AND_SCHEDULE = re.compile(r"(.*?);\s*(\{.*)", re.DOTALL)
LONGEST = 2**31 - 1  # frames of a video
LARGEST_FILE = 2**26  # bytes


def read_prompts(path: Path, *, experiment: str | None = None, with_pictures: bool = False) -> list[Prompt]:
    """Return the prompts of a file, in its order.

    Args:
        path: of the file.
        experiment: the name that entries without one get. It must be known here, because an entry that names the same
            experiment itself would otherwise share a folder with one that gets it from the command line.
        with_pictures: whether each entry names a picture. It is looked up beside the file, then in the working
            directory, and opened to check it. Otherwise the `image` column is ignored.

    Raises:
        FileNotFoundError, ValueError: the message is one line that names --prompt_file, the file, and the line in it.
    """
    lines = _read_text(path).split("\n")
    find = functools.cache(functools.partial(Picture.find, folder=path.parent)) if with_pictures else None
    entries = _table(path, lines, find) if _is_table(path, lines) else _plain(path, lines, find)
    prompts = number_repetitions(
        replace(entry, experiment=entry.experiment or experiment, file=path) for entry in entries
    )
    if not prompts:
        raise ValueError(f"--prompt_file {str(path)!r}: no prompts in this file; expected one a line")
    return prompts


def _read_text(path: Path) -> str:
    """Return the whole file with "\\n" line ends and without byte order mark."""
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ValueError(f"--prompt_file {str(path)!r}: has {size:,} bytes; at most {LARGEST_FILE:,} are read")
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"--prompt_file {str(path)!r}: there is no such file") from None
    except OSError as error:
        raise ValueError(f"--prompt_file {str(path)!r}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{place_in(path, line)}: byte 0x{data[error.start]:02x} at offset {error.start} "
            "is not UTF-8; save the file as UTF-8"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{place_in(path, line)}: a zero byte; save the file as UTF-8 text")
    return text


def _is_table(path: Path, lines: Sequence[str]) -> bool:
    """Return whether the first line names columns; ValueError if it seems to, with a spelling mistake."""
    if path.suffix.lower() != ".csv":
        return False
    number, first = next(((number, line[:1000]) for number, line in enumerate(lines, 1) if line.strip()), (1, ""))
    where = place_in(path, number)
    names = _column_names(next(csv.reader([first]), []))
    words = all(re.fullmatch(r"\w*", name) for name in names)
    for name in names if words else ():
        if name not in COLUMNS and (meant := get_close_matches(name, COLUMNS, n=1, cutoff=0.8)):
            raise ValueError(
                f"{where}: column {name!r} is not known; is it {meant[0]!r}? Those that are read: {', '.join(COLUMNS)}"
            )
    if words and not set(COLUMNS).isdisjoint(names):
        return True
    if "prompt" in _column_names(first.split(";")):
        raise ValueError(f"{where}: columns are separated by commas, not by ';'")
    return False


def _plain(path: Path, lines: Sequence[str], find: Callable[[str], Picture] | None) -> Iterator[Prompt]:
    """Yield the prompt of each line; `find` returns a picture by its name, if pictures are wanted."""
    for number, line in enumerate(lines, 1):
        where = place_in(path, number)
        if not line.strip():
            continue
        if find is None and not line.lstrip().startswith("{") and NAMES_A_PICTURE.search(line):
            raise ValueError(
                f"{where}: {shortened(line.strip())!r} names a picture, which only --mode i2v takes; leave it out or "
                "use a .csv with the columns image and prompt"
            )
        if find is None:
            yield parse_prompt(line.strip(), number, where)
            continue
        before_schedule = PICTURE_AND_SCHEDULE.fullmatch(line.strip())  # prompts in a schedule may contain a ";"
        image, separator, text = (part.strip() for part in line.rpartition(";"))  # so may the path
        if before_schedule:
            image, separator, text = before_schedule[1].strip(), ";", before_schedule[2]
        if not separator:
            raise ValueError(f"{where}: {shortened(text)!r} has no ';'; with --mode i2v a line is image;prompt")
        if not text:
            raise ValueError(f"{where}: {shortened(line.strip())!r} has no prompt behind the ';'")
        yield replace(parse_prompt(text, number, where), picture=_picture(image, where, find))


def _table(path: Path, lines: Sequence[str], find: Callable[[str], Picture] | None) -> Iterator[Prompt]:
    """Yield the prompt of each row; `find` returns a picture by its name, if pictures are wanted."""
    rows = _rows(path, lines)
    header_line, header = next(rows)
    columns = _column_names(header)
    where = place_in(path, header_line)
    for name in ["prompt"] if find is None else ["prompt", "image"]:
        if name not in columns:
            found = shortened(", ".join(map(repr, header)), 200)
            raise ValueError(f"{where}: no {name!r} column among {found}; columns are {', '.join(COLUMNS)}")
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise ValueError(f"{where}: the column {twice[0]!r} appears twice")
    for line, row in rows:
        where = place_in(path, line)
        if any(row[len(columns) :]):
            raise ValueError(
                f"{where}: {len(row)} cells for {len(columns)} columns; a prompt with a comma stands in double quotes"
            )
        cells = dict.fromkeys(COLUMNS, "") | dict(zip(columns, row, strict=False))
        if not cells["prompt"]:
            raise ValueError(f"{where}: {shortened(','.join(row))!r} has no prompt")
        yield replace(
            parse_prompt(cells["prompt"], line, where),
            seed=parse_integer(cells["seed"], f"{where}: seed", minimum=0),
            new_video_length=parse_integer(
                cells["new_video_length"], f"{where}: new_video_length", minimum=1, maximum=LONGEST
            ),
            experiment=_experiment(cells["experiment"], f"{where}: experiment"),
            picture=find and _picture(cells["image"], where, find),
        )


def _rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row begins, and its stripped cells; empty rows are left out."""
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.replace("\n", " ").strip() for cell in row]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{place_in(path, line)}: not a row of a .csv file ({error})") from None


def _column_names(header: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in header]


def _experiment(cell: str, name: str) -> str | None:
    return safe_experiment(cell, source=name) if cell else None


def _picture(name: str, where: str, find: Callable[[str], Picture]) -> Picture:
    if not name:
        raise ValueError(f"{where}: no picture is named; with --mode i2v every prompt needs one")
    try:
        return find(name)
    except ValueError as error:
        raise ValueError(f"{where}: picture {error}") from error
