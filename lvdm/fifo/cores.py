"""How many cores this process may use: a container's limit is often less than what the machine has."""

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> int:
    """The cores that the system gives this process, by its affinity and the quotas of its cgroups; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *core_quotas(Path("/"))])))


def core_quotas(system: Path) -> Iterator[float]:
    """The limits, in cores, of the cgroups that this process is in and of those around them (Linux; else none).

    system: the root of the file system. Version 2 writes "quota period" or "max period" into one file, version 1 two
    numbers into two, -1 for no limit. A container may see its own group as the root.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = system / "sys/fs/cgroup" / controllers
        place = root / group.lstrip("/")
        for folder in (place, *place.parents):
            if not folder.is_relative_to(root):
                break
            quota = _read(folder / "cpu.max") or _read(folder / "cpu.cfs_quota_us") + _read(
                folder / "cpu.cfs_period_us"
            )
            if len(quota) == 2 and quota[0].isdecimal() and int(quota[1]):
                yield int(quota[0]) / int(quota[1])


def _read(path: Path) -> list[str]:
    """The words of a file; none if there is none."""
    try:
        return path.read_text().split()
    except OSError:
        return []
