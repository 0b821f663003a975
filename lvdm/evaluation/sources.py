"""Find the videos to evaluate, and what is known of each.

These are results of videocrafter_main.py, or else videos of other programs: files and folders of numbered pictures. The
prompt of such a video, if it has one, is in a .txt of the same name beside it.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lvdm.io.files import VIDEO_SUFFIXES
from lvdm.io.frames import is_frame_folder
from lvdm.io.results import Result, find_results

Value = TypeVar("Value")


@dataclass(frozen=True)
class Source:
    """A video to evaluate.

    Args:
        path: a file, or a folder of pictures.
        root: the folder that its experiment is in; for a result, the folder of the prompts.
        experiment: the name under which its measurements are averaged.
        name: distinguishes it from the other videos of its experiment; used where there is no prompt.
        schedule: pairs of a frame and the prompt from that frame on; empty if no prompt is known.
        key: equal for videos of different experiments that are compared as a pair, such as prompt and seed.
    """

    path: Path
    root: Path
    experiment: str
    name: str
    schedule: tuple[tuple[int, str], ...]
    key: tuple[Hashable, ...]

    @property
    def prompt(self) -> str:
        """Return what groups videos in the statistics: the prompt, or the name if there is none."""
        return " / ".join(text for _, text in self.schedule) or self.name


def in_force(schedule: Sequence[tuple[int, Value]], frame: int) -> Value:
    """Return the value at `frame` of a schedule, pairs of a frame and the value from that frame on; the first is 0."""
    return [value for start, value in schedule if start <= frame][-1]


def find_sources(paths: Sequence[Path]) -> tuple[list[Source], list[str]]:
    """Find all videos at or below `paths`, each once.

    Experiments of the same name are told apart if they were found at different `paths`, by the path before the name,
    or in different folders below a path, if a video of one is a pair of a video of the other (for example the results
    of two models). A second video with the same key in an experiment, such as cat.gif beside cat.mp4, gets a number
    in its key.

    Returns:
        The videos, and a message for each result that cannot be read.

    Raises:
        FileNotFoundError: one of `paths` does not exist.
    """
    sources: dict[Path, tuple[Path, Source]] = {}  # with the one of `paths` below which it was found
    problems: list[str] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder; RESULTS are videos, or folders of them")
        found, unreadable = _sources_at(path)
        problems += unreadable
        for source in found:
            sources.setdefault(source.path.resolve(), (path if path.is_dir() else path.parent, source))
    return _distinguish(list(sources.values())), problems


def _distinguish(sources: Sequence[tuple[Path, Source]]) -> list[Source]:
    """Return the sources, each given with the path below which it was found, with unique experiments and keys."""
    paths, roots = defaultdict(set), defaultdict(set)
    for path, source in sources:
        paths[source.experiment].add(path)
        roots[path, source.experiment, source.key].add(source.root)
    mixed = {(path, experiment) for (path, experiment, _), places in roots.items() if len(places) > 1}
    distinct, seen = [], Counter()
    for path, source in sources:
        front = path if len(paths[source.experiment]) > 1 else Path()
        below = os.path.relpath(source.root, path) if (path, source.experiment) in mixed else ""
        experiment = (front / below / source.experiment).as_posix()
        number = seen[experiment, source.key]
        seen[experiment, source.key] += 1
        key = (*source.key, number) if number else source.key
        distinct.append(replace(source, experiment=experiment, key=key))
    return distinct


def _sources_at(path: Path) -> tuple[list[Source], list[str]]:
    """Return the results at or below `path`, or all videos if there are no results; and messages as `find_sources`."""
    if path.is_file():
        return [_of_video(path)], []
    results, problems = find_results([path])
    if not results and not problems:
        return list(_find_videos(path)), []
    sources = []
    for result in results:
        try:
            sources.append(_of_result(result))
        except FileNotFoundError as error:
            problems.append(str(error))
    return sources, problems


def _find_videos(folder: Path) -> Iterator[Source]:
    for path in [folder, *sorted(folder.rglob("*"))]:
        if ".partial" in path.suffixes:  # a run is still writing it
            continue
        least = 1 if path == folder else 2  # pictures
        if path.suffix.lower() in VIDEO_SUFFIXES if path.is_file() else is_frame_folder(path, least=least):
            yield _of_video(path)


def _of_result(result: Result) -> Source:
    return Source(
        path=result.find_frames(),
        root=result.root,
        experiment=result.experiment,
        name=result.folder.parent.name,
        schedule=_in_files(_parse_schedule(result.prompt), result.record),
        key=result.identity,
    )


def _in_files(schedule: tuple[tuple[int, str], ...], record: Mapping) -> tuple[tuple[int, str], ...]:
    """Return a schedule with the numbers that frames have in the files of a result.

    They count the frames that the video goes on from (--continue_from), and those in between (--interpolate).
    """
    try:
        every = record["options"].get("interpolate") or 1
        source = (record["frames"] - 1) // every + 1 - record["new_frames"]
    except (KeyError, TypeError, AttributeError):  # a record of an earlier version, which has neither
        return schedule
    return tuple((start and (source + start) * every, text) for start, text in schedule)


def _of_video(path: Path) -> Source:
    name = path.name if path.is_dir() else path.stem
    caption = path.with_name(f"{name}.txt")
    text = caption.read_text(encoding="utf-8", errors="replace").strip() if caption.is_file() else None
    folder = Path(os.path.abspath(path)).parent
    return Source(
        path=path,
        root=folder.parent,
        experiment=folder.name,
        name=name,
        schedule=() if text is None else _parse_schedule(text),
        key=(name,),
    )


def _parse_schedule(text: str) -> tuple[tuple[int, str], ...]:
    """Return pairs of a frame and the prompt from that frame on; `text` is a prompt or a schedule as JSON.

    Unlike in a prompt file, a malformed schedule is no error but a prompt: other programs may have written it.
    """
    try:
        schedule = sorted((int(start), str(prompt)) for start, prompt in json.loads(text).items())
    except (ValueError, AttributeError, RecursionError):
        return ((0, text),)
    return tuple(schedule) if schedule and schedule[0][0] == 0 else ((0, text),)
