"""One process at a time may write a folder."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path


class FolderInUseError(ValueError):
    """Another process writes this folder."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Within this context `folder`, which is made, is this process's own; FolderInUseError says whose it is instead.

    The system lets go of the lock when a process dies, so that a stale one cannot be.
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
                f"{folder} is being written by another process: {owner or 'it has just begun'}"
            ) from None
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            break
        os.close(handle)  # of a process that ended between our two calls, and took the file away
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
