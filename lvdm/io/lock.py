"""Let only one process at a time write a folder.

Uses flock, which Linux and macOS have. The library filelock would not do with less: it leaves the lock's file behind,
and says nothing of who holds it.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from lvdm.runtime.errors import shortened

try:
    import fcntl
except ImportError as error:
    raise ImportError("this program runs on Linux and macOS; on Windows run it in WSL") from error


class FolderInUseError(ValueError):
    """Another process writes this folder."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder within this block; the folder is made if it is missing.

    The system releases the lock when the process ends, however it ends, so a lock cannot be left behind.

    Raises:
        FolderInUseError: Another process holds the lock. The message says which (pid, host), and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 1000).decode(errors="replace")
            os.close(handle)
            raise FolderInUseError(
                f"{folder} is being written by another process ({_in_words(owner)}); wait until it ends, or choose "
                "another --output_dir or --experiment"
            ) from None
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            break
        os.close(handle)  # another process removed the file between our two calls: lock the new one
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _in_words(owner: str) -> str:
    """Return what the content of a lock's file says of the process that wrote it, as far as it can be read."""
    try:
        known = dict(json.loads(owner))
    except (ValueError, TypeError):  # it has the lock, but has not written yet
        return "it has just begun"
    words = {"pid": "pid {}", "host": "on host {}", "since": "since {}"}
    said = ", ".join(text.format(shortened(str(known[key]))) for key, text in words.items() if key in known)
    return said or "it does not say which"
