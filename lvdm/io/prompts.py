"""Prompt files: which videos to make, and where each of them goes.

Two forms. Plain lines: a prompt a line, commas and all, or, where pictures are wanted, `image;prompt`. A table: a .csv
whose first row names the columns: `prompt` and, if wanted, `seed`, `new_video_length`, `experiment` and `image`. Both
are UTF-8, with or without a byte order mark, with any line ends; blank lines are ignored.

A prompt that begins with "{" is a schedule, a JSON object from frame to prompt: {"0": "a cat", "64": "a dog"}.
"""

import csv
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from lvdm.io.images import Picture

COLUMNS = ("prompt", "seed", "new_video_length", "experiment", "image")
READABLE_LENGTH = 80
PICTURE_AND_SCHEDULE = re.compile(r"(.*?);\s*(\{.*)", re.DOTALL)
PICTURE_BEFORE = re.compile(r"\.(png|jpe?g|webp|gif|bmp|mp4|mov|webm|mkv|avi)\s*;", re.IGNORECASE)
LONGEST = 2**31 - 1  # frames of a video
LARGEST_FILE = 2**26  # bytes
LARGEST = 2**63 - 1  # of the whole numbers that torch, NumPy and JSON readers all take


@dataclass(frozen=True)
class Prompt:
    """One video to make. None stands for "as the command line says"."""

    text: str  # of a schedule: as JSON
    line: int  # counted from 1, for messages
    seed: int | None = None
    new_video_length: int | None = None
    experiment: str | None = None
    picture: Picture | None = None
    repetition: int = 0  # how many earlier entries have the same text, seed, experiment and picture
    scheduled: tuple[tuple[int, str], ...] = ()  # of a schedule: from which frame on, which prompt

    @property
    def schedule(self) -> tuple[tuple[int, str], ...]:
        """From which frame on, which prompt; the first is for frame 0."""
        return self.scheduled or ((0, self.text),)

    @property
    def folder(self) -> str:
        """A readable folder name that no other prompt has; with the experiment's name, no other entry either."""
        readable = re.sub("[^A-Za-z0-9_-]", "", self.text.replace(" ", "_"))[:READABLE_LENGTH] or "prompt"
        identity = self.text if self.picture is None else f"{self.text}\0{self.picture.digest}"
        name = f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        if self.seed is not None:
            name += f"_seed{self.seed}"
        if self.repetition > 0:
            name += f"_{self.repetition + 1}"
        return name


def read_prompts(path: Path, *, experiment: str | None = None, with_pictures: bool = False) -> list[Prompt]:
    """Reads a prompt file, in its order.

    experiment: the name that entries without one of their own get. Only with it can an entry that has the name of
    --experiment in the file be told from one that gets it from the command line: the two would share a folder.
    with_pictures: every entry names a picture, which is looked up beside the file, then in the working directory, and
    read to see that it can be. Without it the `image` column is left alone.

    Raises FileNotFoundError or ValueError with one line that names --prompt_file, the file, and the line in it.
    """
    text = _read_text(path)
    lines = text.split("\n")
    find = functools.cache(functools.partial(Picture.find, folder=path.parent)) if with_pictures else None
    entries = _plain(path, lines, find)
    if path.suffix.lower() == ".csv":
        number, first = next(((number, line[:1000]) for number, line in enumerate(lines, 1) if line.strip()), (1, ""))
        names = _names(next(csv.reader([first]), []))
        words = all(re.fullmatch(r"\w*", name) for name in names)
        for name in names if words else ():
            if name not in COLUMNS and (meant := get_close_matches(name, COLUMNS, n=1, cutoff=0.8)):
                raise ValueError(
                    f"--prompt_file {str(path)!r}, line {number}: column {name!r} is not known; is it {meant[0]!r}? "
                    f"Those that are read: {', '.join(COLUMNS)}"
                )
        if words and not set(COLUMNS).isdisjoint(names):
            entries = _table(path, lines, find)
        elif "prompt" in _names(first.split(";")):
            raise ValueError(f"--prompt_file {str(path)!r}, line {number}: columns are separated by commas, not by ';'")
    prompts = _number_repetitions(replace(entry, experiment=entry.experiment or experiment) for entry in entries)
    if not prompts:
        raise ValueError(f"--prompt_file {str(path)!r}: no prompts in this file")
    return prompts


def share(prompts: Sequence[Prompt], *, rank: int, num_processes: int) -> list[Prompt]:
    """The prompts that process `rank` of `num_processes` makes."""
    return list(prompts[rank::num_processes])


def safe_experiment(name: str, *, source: str = "--experiment") -> str:
    """`name`, if it can be a file and folder name. source: the flag, or file and line, that an error names."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", name):
        raise ValueError(
            f"{source} {name!r}: a name has 1 to 80 letters, digits, '-', '_' and '.', and does not begin with '.'"
        )
    if name.lower() == "origin":
        raise ValueError(f"{source} {name!r}: this name is taken by the base clip's own file, origin.gif")
    return name


def _read_text(path: Path) -> str:
    """The whole file with "\\n" line ends and without byte order mark."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"--prompt_file {str(path)!r}: larger than {LARGEST_FILE // 2**20} MiB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"--prompt_file {str(path)!r}: no such file") from None
    except OSError as error:
        raise ValueError(f"--prompt_file {str(path)!r}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"--prompt_file {str(path)!r}, line {line}: byte 0x{data[error.start]:02x} at offset {error.start} "
            "is not UTF-8; save the file as UTF-8"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"--prompt_file {str(path)!r}, line {line}: a zero byte; save the file as UTF-8 text")
    return text


def _plain(path: Path, lines: Sequence[str], find: Callable[[str], Picture] | None) -> Iterator[Prompt]:
    for number, line in enumerate(lines, 1):
        where = f"--prompt_file {str(path)!r}, line {number}"
        if not line.strip():
            continue
        if find is None and not line.lstrip().startswith("{") and PICTURE_BEFORE.search(line):
            raise ValueError(
                f"{where}: {line.strip()!r} names a picture, which --mode i2v takes; for other modes, leave it out or "
                "use a .csv with the columns image and prompt"
            )
        if find is None:
            yield _prompt(line.strip(), number, where)
            continue
        before_schedule = PICTURE_AND_SCHEDULE.fullmatch(line.strip())  # prompts in it may hold a ";"
        image, separator, text = (part.strip() for part in line.rpartition(";"))  # paths may hold one, too
        if before_schedule:
            image, separator, text = before_schedule[1].strip(), ";", before_schedule[2]
        if not separator:
            raise ValueError(f"{where}: {text!r} has no ';'; with i2v a line is image;prompt")
        if not text:
            raise ValueError(f"{where}: {line.strip()!r} has no prompt behind the ';'")
        yield replace(_prompt(text, number, where), picture=_picture(image, where, find))


def _prompt(text: str, line: int, where: str) -> Prompt:
    """A prompt, or a schedule of them; the same schedule always has the same text."""
    if not text.startswith("{"):
        return Prompt(text, line)
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: begins with '{{', but is no JSON object from frame to prompt ({error})") from None
    schedule = []
    for frame, prompt in pairs:
        start = _whole(frame, f"{where}: in a schedule of prompts, frame", minimum=0)
        if start is None or not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"{where}: in a schedule of prompts, frame {frame!r} has no prompt, but {prompt!r}")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where}: in a schedule, the prompt of frame {frame} has half a character") from None
        schedule.append((start, prompt.strip()))
    starts = [start for start, _ in schedule]
    if starts[:1] != [0] or starts != sorted(set(starts)):
        raise ValueError(f"{where}: a schedule of prompts begins with frame 0 and rises, here the frames are {starts}")
    canonical = json.dumps({str(start): prompt for start, prompt in schedule}, ensure_ascii=False)
    return Prompt(canonical, line, scheduled=tuple(schedule))


def _picture(name: str, where: str, find: Callable[[str], Picture]) -> Picture:
    if not name:
        raise ValueError(f"{where}: no picture is named; with i2v every prompt needs one")
    try:
        return find(name)
    except ValueError as error:
        raise ValueError(f"{where}: picture {error}") from error


def _table(path: Path, lines: Sequence[str], find: Callable[[str], Picture] | None) -> Iterator[Prompt]:
    rows = _rows(path, lines)
    header_line, header = next(rows)
    columns = _names(header)
    where = f"--prompt_file {str(path)!r}, line"
    for name in ["prompt"] if find is None else ["prompt", "image"]:
        if name not in columns:
            raise ValueError(f"{where} {header_line}: no {name!r} column among {', '.join(map(repr, header))}")
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise ValueError(f"{where} {header_line}: the column {twice[0]!r} stands there twice")
    for line, row in rows:
        if any(row[len(columns) :]):
            raise ValueError(
                f"{where} {line}: {len(row)} cells for {len(columns)} columns; "
                "a prompt with a comma stands in double quotes"
            )
        cells = dict.fromkeys(COLUMNS, "") | dict(zip(columns, row, strict=False))
        if not cells["prompt"]:
            raise ValueError(f"{where} {line}: {','.join(row)!r} has no prompt")
        yield replace(
            _prompt(cells["prompt"], line, f"{where} {line}"),
            seed=_whole(cells["seed"], f"{where} {line}: seed", minimum=0),
            new_video_length=_whole(
                cells["new_video_length"], f"{where} {line}: new_video_length", minimum=1, maximum=LONGEST
            ),
            experiment=_experiment(cells["experiment"], f"{where} {line}: experiment"),
            picture=find and _picture(cells["image"], f"{where} {line}", find),
        )


def _rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, cells stripped, each with the number of the line on which it begins."""
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.replace("\n", " ").strip() for cell in row]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"--prompt_file {str(path)!r}, line {line}: not a row of a .csv file ({error})") from None


def _names(header: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in header]


def _whole(cell: str, name: str, *, minimum: int, maximum: int = LARGEST) -> int | None:
    if not cell:
        return None
    if not re.fullmatch("[0-9]{1,19}", cell) or not minimum <= int(cell) <= maximum:
        raise ValueError(f"{name} {cell!r} is not a whole number from {minimum} to {maximum}")
    return int(cell)


def _experiment(cell: str, name: str) -> str | None:
    return safe_experiment(cell, source=name) if cell else None


def _number_repetitions(prompts: Iterator[Prompt]) -> list[Prompt]:
    seen: Counter[tuple[str, int | None, str | None, str | None]] = Counter()
    numbered = []
    for prompt in prompts:
        key = (prompt.text, prompt.seed, prompt.experiment, prompt.picture and prompt.picture.digest)
        numbered.append(replace(prompt, repetition=seen[key]))
        seen[key] += 1
    return numbered
