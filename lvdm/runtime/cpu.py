"""How many cores this process may use: a container's limit is often less than what the machine has."""

import ctypes
import os
import sys
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


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory instead of handing it back to the system, where it knows how (glibc).

    The intermediate results of a forward are a few MiB each. Fresh pages for all of them, zeroed and mapped one by one,
    take longer than many of the computations.
    """
    if not sys.platform.startswith("linux") or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    libc.mallopt(mmap_max, 0)  # large blocks come from the heap, too
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 64 * 2**20)


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (known for Linux on x86); else fp32 is the faster one."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())
