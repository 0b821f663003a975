"""Videos to evaluate: where they are, what is known of them, and their frames, one after the other.

A result folder `{prompt}/{experiment}/` of videocrafter_main.py has a record, `{experiment}.json`. Other programs'
videos are files, or folders of numbered pictures; a .txt of the same name beside one is its prompt.
"""

import json
import os
import re
import struct
import subprocess
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import imageio.v3 as iio
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from lvdm.io.files import VIDEO_SUFFIXES
from lvdm.runtime.errors import one_line

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MIN_SIDE = 16  # pixels; a tile of lvdm.evaluation.motion
# What decoders raise for a broken file: Pillow most of these, one for each way in which a file can be broken.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)


class UnreadableVideoError(ValueError):
    """A video, or the record of one, that cannot be read; the sentence begins with its path."""


@dataclass(frozen=True)
class Source:
    """A video to evaluate.

    path: a file, or a folder of pictures. root: the folder that its experiment is in; of a result, that of the prompts.
    name: what tells it from others of its experiment, where there is no record.
    schedule: from which frame on it shows which prompt; empty where no prompt is known. key: what a video of another
    experiment has in common with it if the two can be compared as a pair: prompt, seed and the like.
    """

    path: Path
    root: Path
    experiment: str
    name: str
    schedule: tuple[tuple[int, str], ...]
    key: tuple[Hashable, ...]

    @property
    def prompt(self) -> str:
        """What groups videos in the statistics: the prompt, or else the name."""
        return " / ".join(text for _, text in self.schedule) or self.name


def find_sources(paths: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """All videos at or below `paths`, each once, and a sentence for each that has a record but cannot be read.

    Experiments of one name in several of the paths are told apart by the path before the name, and so are those in
    several folders below a path if a video of one is a pair of a video of another, as of two models. No key occurs
    twice in an experiment: a second video, as cat.gif beside cat.mp4, has a number in its key.
    FileNotFoundError for a path that is not there.
    """
    sources: dict[Path, tuple[Path, Source]] = {}  # with the one of `paths` where it was found
    problems = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder; RESULTS are videos, or folders of them")
        for found in _sources_at(path):
            if isinstance(found, Source):
                sources.setdefault(found.path.resolve(), (path if path.is_dir() else path.parent, found))
            else:
                problems.append(str(found))
    return _told_apart(list(sources.values())), problems


def _told_apart(sources: Sequence[tuple[Path, Source]]) -> list[Source]:
    """Each source, found at the path before it, with the experiment and the key that `find_sources` promises."""
    paths, roots = defaultdict(set), defaultdict(set)
    for path, one in sources:
        paths[one.experiment].add(path)
        roots[path, one.experiment, one.key].add(one.root)
    mixed = {(path, experiment) for (path, experiment, _), places in roots.items() if len(places) > 1}
    named, seen = [], Counter()
    for path, one in sources:
        front = path if len(paths[one.experiment]) > 1 else Path()
        below = os.path.relpath(one.root, path) if (path, one.experiment) in mixed else ""
        experiment = (front / below / one.experiment).as_posix()
        number = seen[experiment, one.key]
        seen[experiment, one.key] += 1
        named.append(replace(one, experiment=experiment, key=(*one.key, number) if number else one.key))
    return named


def find_records(root: Path) -> Iterator[Path]:
    """The JSON files at or below `root` that have the name of their folder, as the records of results do."""
    return (path for path in sorted(root.rglob("*.json")) if path.stem == path.parent.name)


def read_record(path: Path) -> Mapping[str, Any] | None:
    """What a result's record says; None if it is another JSON file, without a prompt. ValueError if it is broken."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableVideoError(f"{path}: not JSON ({error})") from error
    return record if isinstance(record, dict) and isinstance(record.get("prompt"), str) else None


def result_video(folder: Path) -> Path:
    """The frames of a result: fifo/ if it holds pictures, else the MP4, else the GIF. FileNotFoundError without any."""
    for path in (folder / "fifo", folder / f"{folder.name}.mp4", folder / f"{folder.name}.gif"):
        if path.is_file() or (path.is_dir() and _pictures(path)):
            return path
    raise FileNotFoundError(f"{folder}: no fifo/*.png, {folder.name}.mp4 or {folder.name}.gif")


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 of a video file or a folder of pictures, in order; one at a time is in memory.

    UnreadableVideoError at the frame that cannot be read or has another size, or if there is none.
    """
    shape = None
    try:
        for number, frame in enumerate(_decoded(path)):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != (shape or (*frame.shape[:2], 3)):
                expected = shape or "(H, W, 3)"
                raise ValueError(f"frame {number} is {frame.dtype} {frame.shape}, expected uint8 {expected}")
            if min(frame.shape[:2]) < MIN_SIDE:
                raise ValueError(
                    f"frames are {frame.shape[0]}x{frame.shape[1]}, at least {MIN_SIDE}x{MIN_SIDE} are needed"
                )
            shape = frame.shape
            yield frame
    except BROKEN as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UnreadableVideoError(f"{path}: {reason}") from error
    if shape is None:
        raise UnreadableVideoError(f"{path}: there is no frame in it")


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change of a file, or of every picture of a folder: another list, another video.

    UnreadableVideoError if one of them is not there.
    """
    try:
        files = _pictures(path) if path.is_dir() else [path]
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError as error:
        raise UnreadableVideoError(f"{path}: {one_line(error)}") from error


def _sources_at(path: Path) -> Iterator[Source | UnreadableVideoError]:
    """Results if there are any at or below `path`; otherwise all videos."""
    if path.is_file():
        yield _loose(path)
        return
    any_result = False
    for record_path in find_records(path):
        try:
            record = read_record(record_path)
            if record is not None:
                any_result = True
                yield _result(record_path.parent, record)
        except (UnreadableVideoError, FileNotFoundError) as error:
            any_result = True
            yield UnreadableVideoError(str(error))
    if any_result:
        return
    for video in [path, *sorted(path.rglob("*"))]:
        whole = ".partial" not in video.suffixes  # what a run is still writing is not
        least = 1 if video == path else 2  # pictures
        if whole and (video.suffix.lower() in VIDEO_SUFFIXES if video.is_file() else _is_frame_folder(video, least)):
            yield _loose(video)


def _result(folder: Path, record: Mapping[str, Any]) -> Source:
    text, image = record["prompt"], record.get("image")
    picture = image.get("digest") if isinstance(image, dict) else None
    others = (record.get("seed"), record.get("repetition", 0), picture)
    key = tuple(json.dumps(value) if isinstance(value, (dict, list)) else value for value in others)
    return Source(
        result_video(folder), folder.parent.parent, folder.name, folder.parent.name, _schedule(text), (text, *key)
    )


def _loose(path: Path) -> Source:
    name = path.name if path.is_dir() else path.stem
    caption = path.with_name(f"{name}.txt")
    schedule = _schedule(caption.read_text(encoding="utf-8", errors="replace").strip()) if caption.is_file() else ()
    folder = Path(os.path.abspath(path)).parent
    return Source(path, folder.parent, folder.name, name, schedule, (name,))


def _schedule(text: str) -> tuple[tuple[int, str], ...]:
    """From which frame on, which prompt: `text` is a prompt, or a schedule of prompts as lvdm.io.prompts reads it."""
    try:
        schedule = sorted((int(start), str(prompt)) for start, prompt in json.loads(text).items())
    except (ValueError, AttributeError, RecursionError):
        return ((0, text),)
    return tuple(schedule) if schedule and schedule[0][0] == 0 else ((0, text),)


def _decoded(path: Path) -> Iterator[np.ndarray]:
    if path.is_dir():
        return map(_picture, _pictures(path))
    if path.suffix.lower() == ".gif":
        return iio.imiter(path, plugin="pillow", mode="RGB")
    return _film(path)


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode[0] in "IF":  # Pillow would cut such levels off at 255
            raise ValueError(f"{path.name} is not of 8 bits (Pillow's mode {image.mode})")
        return np.array(image.convert("RGB"))


def _film(path: Path) -> Iterator[np.ndarray]:
    """The frames that the file holds, each once: ffmpeg, unless told, repeats some where the rate is not constant.

    ValueError where ffmpeg finds a fault, at which it would otherwise end as if there were no more.
    """
    source = [get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", f"file:{path}", "-map", "0:v:0"]
    pictures = ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
    with TemporaryFile() as said:
        with subprocess.Popen(
            [*source, *pictures], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        ) as ffmpeg:
            try:
                while ffmpeg.stdout.readline():  # "P6", then the size, then the highest level, then the pixels
                    width, height = map(int, ffmpeg.stdout.readline().split())
                    ffmpeg.stdout.readline()
                    frame = np.empty((height, width, 3), np.uint8)
                    if ffmpeg.stdout.readinto(frame) < frame.nbytes:
                        break
                    yield frame
                ffmpeg.wait()
            finally:
                ffmpeg.kill()  # for who wants no more frames
        if ffmpeg.returncode != 0:
            said.seek(0)
            line = said.readline().decode(errors="replace").strip()
            raise ValueError(re.sub(r"^\[[^]]*\] ", "", line) or f"ffmpeg ended with status {ffmpeg.returncode}")


def _pictures(folder: Path) -> list[Path]:
    """In the order of the numbers in their names, so that 10 comes after 9."""
    pictures = (path for path in _files(folder) if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(pictures, key=lambda path: [int(part) if part.isdecimal() else part for part in _parts(path.name)])


def _parts(name: str) -> list[str]:
    return re.split(r"([0-9]+)", name)  # texts and numbers in turn, a text first


def _is_frame_folder(path: Path, least: int) -> bool:
    """Whether a folder holds `least` pictures, and nothing else: a folder of contact sheets holds more."""
    files = _files(path) if path.is_dir() else []
    return len(files) >= least and all(file.suffix.lower() in PICTURE_SUFFIXES and not file.is_dir() for file in files)


def _files(folder: Path) -> list[Path]:
    """What is in a folder, but for what file managers leave there: .DS_Store, ._0.png, Thumbs.db."""
    return [path for path in folder.iterdir() if path.name[0] != "." and path.name != "Thumbs.db"]
