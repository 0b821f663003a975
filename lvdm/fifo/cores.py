"""How many cores this process may use: a container's limit is often less than what the machine has."""

import os
from collections.abc import Iterator
from pathlib import Path

V1_QUOTA, V1_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def usable_cores(system: Path = Path("/")) -> int:
    """The cores that the system gives this process, by its affinity and the quotas of its cgroups; at least 1.

    system: the root of the file system.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *core_quotas(system)])))


def core_quotas(system: Path) -> Iterator[float]:
    """The limits, in cores, of the cgroups that this process is in and of those around them (Linux; else none).

    system: the root of the file system. Version 2 writes "quota period" or "max period" into one file, version 1 two
    numbers into two, -1 for no limit. A container may see its own group as the root.
    """
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, controllers, group = ([*line.split(":", 2), "", "", ""])[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
        place = root / group.lstrip("/")
        for folder in (place, *place.parents):
            if not folder.is_relative_to(root):
                break
            words = _read(folder / "cpu.max") or f"{_read(folder / V1_QUOTA)} {_read(folder / V1_PERIOD)}"
            quota = [int(word) for word in words.split() if word.isdecimal()]
            if len(quota) == 2 and quota[1]:
                yield quota[0] / quota[1]


def _read(path: Path) -> str:
    """What a file says; nothing if there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
