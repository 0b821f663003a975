"""Prompts: which videos to make, and the folder of each.

A text that begins with "{" is a schedule, a JSON object from frame to prompt: {"0": "a cat", "64": "a dog"}.
Prompt files are read in prompt_file.py.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lvdm.io.images import Picture
from lvdm.runtime.errors import shortened

READABLE_LENGTH = 80  # characters of a prompt that its folder's name shows
NAMES_A_PICTURE = re.compile(r"\.(png|jpe?g|webp|gif|bmp|mp4|mov|webm|mkv|avi)\s*;", re.IGNORECASE)
LARGEST = 2**63 - 1  # of the integers that torch, NumPy and JSON readers all take


@dataclass(frozen=True)
class Prompt:
    """One video to make. None means that the command line decides.

    Args:
        text: the prompt; of a schedule, its canonical JSON.
        line: the line of the file, or the number of the --prompt, counted from 1; for messages only.
        repetition: how many earlier prompts have the same text, seed, experiment and picture.
        scheduled: of a schedule, pairs of a frame and the prompt from that frame on.
        file: the prompt file; None for --prompt. For messages only.
    """

    text: str
    line: int
    seed: int | None = None
    new_video_length: int | None = None
    experiment: str | None = None
    picture: Picture | None = None
    repetition: int = 0
    scheduled: tuple[tuple[int, str], ...] = ()
    file: Path | None = field(default=None, compare=False)

    @property
    def schedule(self) -> tuple[tuple[int, str], ...]:
        """Pairs of a frame and the prompt from that frame on; the first frame is 0."""
        return self.scheduled or ((0, self.text),)

    @property
    def where(self) -> str:
        """Where the prompt was given, for messages: "--prompt_file 'a.txt', line 3" or "--prompt number 3"."""
        return f"--prompt number {self.line}" if self.file is None else place_in(self.file, self.line)

    @property
    def folder(self) -> str:
        """A readable folder name that no other prompt has, and no other entry with the same experiment."""
        readable = re.sub("[^A-Za-z0-9_-]", "", self.text.replace(" ", "_"))[:READABLE_LENGTH] or "prompt"
        identity = self.text if self.picture is None else f"{self.text}\0{self.picture.digest}"
        name = f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        if self.seed is not None:
            name += f"_seed{self.seed}"
        if self.repetition > 0:
            name += f"_{self.repetition + 1}"
        return name


def prompts_from_words(
    texts: Sequence[str], images: Sequence[Path] = (), *, experiment: str | None = None, with_pictures: bool = False
) -> list[Prompt]:
    """Return the prompts that --prompt TEXT and --image FILE, both repeatable, ask for.

    Args:
        texts: of each --prompt, in order; a schedule is allowed as in prompt files.
        images: of each --image, relative to the working directory: one for all prompts, or one for each, in order.
        experiment: the name that all of them get.
        with_pictures: whether the mode begins a video from a picture, so that there must be images; else none may be.

    Raises:
        ValueError: the message names --prompt or --image and the offending value.
    """
    if images and not with_pictures:
        raise ValueError(f"--image {str(images[0])!r}: only --mode i2v begins from a picture; leave --image out")
    if with_pictures and len(images) not in {1, len(texts)}:
        raise ValueError(
            f"--image is given {len(images)} times for {len(texts)} --prompt: --mode i2v takes one image for all "
            "prompts, or one for each"
        )
    pictures: list[Picture | None] = [_named_picture(image) for image in images] or [None]
    if len(pictures) == 1:
        pictures *= len(texts)
    prompts = []
    for number, (text, picture) in enumerate(zip(texts, pictures, strict=True), 1):
        where = f"--prompt {shortened(text)!r}"
        words = re.sub(r"[\r\n]+", " ", text).strip()
        if not words:
            raise ValueError(f"{where}: is empty; expected a description of the video")
        try:
            words.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where}: is not UTF-8") from None
        if "\0" in words:
            raise ValueError(f"{where}: has a zero byte")
        if not words.startswith("{") and NAMES_A_PICTURE.search(words):
            raise ValueError(f"{where}: names a picture; give it as --image FILE, with --mode i2v")
        prompts.append(replace(parse_prompt(words, number, where), picture=picture, experiment=experiment))
    return number_repetitions(prompts)


def share(prompts: Sequence[Prompt], *, rank: int, num_processes: int) -> list[Prompt]:
    """Return the prompts of which process `rank` of `num_processes` makes the videos."""
    return list(prompts[rank::num_processes])


def safe_experiment(name: str, *, source: str = "--experiment") -> str:
    """Return `name` if it is safe as a file and folder name.

    Args:
        name: the experiment's name.
        source: the flag, or file and line, that an error names.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", name):
        raise ValueError(
            f"{source} {shortened(name)!r}: a name has 1 to 80 letters, digits, '-', '_' and '.', and does "
            "not begin with '.'"
        )
    if name.lower() == "origin":
        raise ValueError(f"{source} {name!r}: this name is taken by the base clip's own file, origin.gif")
    return name


def parse_prompt(text: str, line: int, where: str) -> Prompt:
    """Return a text, or a schedule of texts, as a prompt.

    Args:
        text: stripped and not empty.
        line: see Prompt.
        where: the flag, or file and line, that an error names.
    """
    if not text.startswith("{"):
        return Prompt(text, line)
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: begins with '{{', but is no JSON object from frame to prompt ({error})") from None
    schedule = []
    for frame, prompt in pairs:
        start = parse_integer(frame, f"{where}: in a schedule of prompts, frame", minimum=0)
        if start is None or not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(
                f"{where}: in a schedule of prompts, frame {shortened(frame)!r}: expected a prompt, got "
                f"{shortened(repr(prompt))}"
            )
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{where}: in a schedule, the prompt of frame {frame} contains an unpaired surrogate"
            ) from None
        schedule.append((start, prompt.strip()))
    starts = [start for start, _ in schedule]
    if starts[:1] != [0] or starts != sorted(set(starts)):
        frames = shortened(", ".join(map(str, starts))) or "none"
        raise ValueError(f"{where}: a schedule of prompts begins with frame 0 and rises, here the frames are {frames}")
    canonical = json.dumps({str(start): prompt for start, prompt in schedule}, ensure_ascii=False)
    return Prompt(canonical, line, scheduled=tuple(schedule))


def place_in(file: Path, line: int) -> str:
    """Return the name of a line in a prompt file, for messages."""
    return f"--prompt_file {str(file)!r}, line {line}"


def parse_integer(text: str, name: str, *, minimum: int, maximum: int = LARGEST) -> int | None:
    """Return the integer that `text` says, or None if it is empty. `name` begins the error."""
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,19}", text) or not minimum <= int(text) <= maximum:
        raise ValueError(f"{name} {shortened(text)!r} is not a whole number from {minimum} to {maximum}")
    return int(text)


def number_repetitions(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Return the prompts, each with the number of equal ones before it."""
    seen: Counter[tuple[str, int | None, str | None, str | None]] = Counter()
    numbered = []
    for prompt in prompts:
        key = (prompt.text, prompt.seed, prompt.experiment, prompt.picture and prompt.picture.digest)
        numbered.append(replace(prompt, repetition=seen[key]))
        seen[key] += 1
    return numbered


def _named_picture(image: Path) -> Picture:
    try:
        return Picture.find(str(image), folder=Path())
    except ValueError as error:
        raise ValueError(f"--image {error}") from error
