"""Files that are whole when they have their name, and files that tell when they were damaged."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from lvdm.runtime.progress import print_above

VIDEO_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".avi", ".mkv")

# The version of the format; behind it stand the SHA-256 of the content as hex digits, and a line end.
SEAL = b"fifo-sealed-1 "
SEAL_LENGTH = len(SEAL) + 64 + 1
LARGEST_SEALED = 2**30  # bytes that are read of a file; none that was written is nearly as large


class DamagedFileError(ValueError):
    """A file is not what was once written to it."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a place beside `path` for a file or folder. It takes that name when the block ends, or goes away.

    The place is this process's own, so that several may write the same file; the last one's stays. The folder is made.
    A file is on the disk, not only on its way there, before it has the name: a power cut leaves it whole or not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    remove(partial)  # of a process that had this one's number
    try:
        yield partial
        if partial.is_file():
            _reach_disk(partial)
        partial.replace(path)
    except BaseException:
        remove(partial)
        raise


def _reach_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_sealed(path: Path, content: bytes) -> None:
    """Writes `content` with its checksum."""
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)


def read_sealed(path: Path) -> bytes:
    """The content that `write_sealed` wrote; DamagedFileError if it is another. OSError if there is no such file."""
    with path.open("rb") as file:
        head = file.read(SEAL_LENGTH)
        if not head.startswith(SEAL):
            raise DamagedFileError(f"{path}: not a file of this program, or of another version of it")
        content = file.read(LARGEST_SEALED)
    if head[len(SEAL) :] != hashlib.sha256(content).hexdigest().encode() + b"\n":
        raise DamagedFileError(f"{path}: the checksum is wrong; the file is cut off or was changed")
    return content


def set_aside(path: Path, error: Exception, *, with_it: Iterable[Path] = ()) -> None:
    """Gives a file in which `error` was found another name, and says so: it is neither used nor lost.

    with_it: what is of no use without it, and treated alike.
    """
    names = []
    for file in (path, *with_it):
        places = (file.with_name(f"{file.name}.damaged{number or ''}") for number in count())
        names.append(next(place for place in places if not place.exists()))
        file.replace(names[-1])
    print_above(f"warning: {error}; set aside: {', '.join(name.name for name in names)}")


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def check_writable(folder: Path, *, flag: str) -> None:
    """Create `folder`, so that nothing is computed for a place that takes no files; ValueError names the flag."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{flag} {str(folder)!r}: cannot be written ({reason})") from None
