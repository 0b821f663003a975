"""Write files so that they are complete when they have their name, and detect those that were damaged later."""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from lvdm.runtime.errors import one_line
from lvdm.runtime.progress import print_above, progress_bar

VIDEO_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".avi", ".mkv")

DIGEST_BLOCK = 1 << 23  # bytes that are read at once; files of half a GiB get a progress bar

# Sealed files begin with the version of the format, the SHA-256 of the content as hex digits, and a line end.
SEAL = b"fifo-sealed-1 "
SEAL_LENGTH = len(SEAL) + 64 + 1
LARGEST_SEALED = 2**30  # bytes that are read of a sealed file; none that this program writes is nearly as large


class DamagedFileError(ValueError):
    """The content of a file is not what was written to it."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. What is written there takes the name `path` when the block ends.

    It may be a file or a folder; after an exception it is removed. The parent folder is made if it is missing. The
    temporary path belongs to this process, so several may write the same file; the last one's stays. A file is on the
    disk before it takes its name, so that after a power cut it is either complete or not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    remove(partial)  # of an earlier process with the same number
    try:
        yield partial
        if partial.is_file():
            _flush_to_disk(partial)
        partial.replace(path)
    except BaseException:
        remove(partial)
        raise


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_sealed(path: Path, content: bytes) -> None:
    """Write `content` with its checksum."""
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)


def read_sealed(path: Path) -> bytes:
    """Return the content that `write_sealed` wrote.

    Raises:
        DamagedFileError: the content is another one.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(SEAL_LENGTH)
        if not head.startswith(SEAL):
            raise DamagedFileError(f"{path}: not a file of this program, or of another version of it")
        content = file.read(LARGEST_SEALED)
    if head[len(SEAL) :] != hashlib.sha256(content).hexdigest().encode() + b"\n":
        raise DamagedFileError(f"{path}: the checksum is wrong; the file is cut off or was changed")
    return content


def set_aside(path: Path, error: Exception, *, with_it: Iterable[Path] = ()) -> None:
    """Rename a damaged file, so that it is neither used nor lost, and print a warning.

    Args:
        path: the damaged file.
        error: what is wrong with it.
        with_it: files that are of no use without it; they are renamed, too.
    """
    names = []
    for file in (path, *with_it):
        places = (file.with_name(f"{file.name}.damaged{number or ''}") for number in count())
        names.append(next(place for place in places if not place.exists()))
        file.replace(names[-1])
    print_above(f"warning: {error}; set aside: {', '.join(name.name for name in names)}")


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    digest, blocks = hashlib.sha256(), math.ceil(Path(path).stat().st_size / DIGEST_BLOCK)
    with open(path, "rb") as file:
        read = iter(partial(file.read, DIGEST_BLOCK), b"")
        for block in progress_bar(read, desc=f"digest of {Path(path).name}", total=blocks, disabled=blocks < 64):
            digest.update(block)
    return digest.hexdigest()


def check_writable(folder: Path, *, flag: str) -> None:
    """Create `folder`, so that nothing is computed for a place that takes no files; ValueError names the flag."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = one_line(error)
        raise ValueError(f"{flag} {str(folder)!r}: cannot be written ({reason})") from None
