"""Read the results of videocrafter_main.py: folders {root}/{prompt}/{experiment}/ with a record {experiment}.json.

The evaluation, the gallery and the scripts find results here and nowhere else.
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvdm.io.frames import list_pictures


@dataclass(frozen=True)
class Result:
    """A finished video. It is finished when its record is there.

    The record may come from another version of this program or from another program: all of its fields but "prompt",
    a text, may be missing or of any type.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def experiment(self) -> str:
        """Return the name of the experiment, which is that of the folder."""
        return self.folder.name

    @property
    def root(self) -> Path:
        """Return the folder that holds the folders of the prompts."""
        return self.folder.parent.parent

    @property
    def prompt(self) -> str:
        """Return the text of the prompt."""
        return self.record["prompt"]

    @property
    def image(self) -> Mapping[str, Any]:
        """Return "path" and "digest" of the image that the video begins with; empty if there is none."""
        return _mapping(self.record.get("image"))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the flags that change the video's pixels or files, by their names."""
        return _mapping(self.record.get("settings"))

    @property
    def identity(self) -> tuple[Hashable, ...]:
        """Return prompt, seed, repetition and image, which are equal for the same video in two experiments."""
        values = self.record.get("seed"), self.record.get("repetition", 0), self.image.get("digest")
        return (self.prompt, *(json.dumps(value) if isinstance(value, (dict, list)) else value for value in values))

    def find_movie(self) -> Path:
        """Return the path of the MP4, or else of the GIF; raise FileNotFoundError if there is neither."""
        mp4, gif = (self.folder / f"{self.experiment}.{suffix}" for suffix in ("mp4", "gif"))
        for path in (mp4, gif):
            if path.is_file():
                return path
        raise FileNotFoundError(f"{self.folder}: there is neither {mp4.name} nor {gif.name}")

    def find_frames(self) -> Path:
        """Return where its frames are: fifo/ if that holds pictures, which are lossless, or else the movie."""
        pictures = self.folder / "fifo"
        if pictures.is_dir() and list_pictures(pictures):
            return pictures
        try:
            return self.find_movie()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}, and no picture in fifo/") from None


def find_results(roots: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """Find all results at or below `roots`, each once.

    Returns:
        The results in the order of their paths, and a message for each record that cannot be read.
    """
    results, problems = [], []
    for path in dict.fromkeys(path for root in roots for path in _find_records(root)):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"{path}: not a JSON file that can be read ({error})")
            continue
        if isinstance(record, dict) and isinstance(record.get("prompt"), str):  # otherwise it is another JSON file
            results.append(Result(path.parent, record))
    return results, problems


def _find_records(root: Path) -> Iterator[Path]:
    """Yield the JSON files at or below `root` that have the name of their folder."""
    return (path for path in sorted(root.rglob("*.json")) if path.stem == path.parent.name)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
