"""Use the CPU well: how many cores this process may use, which units they have, and how freed memory is reused."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

V1_QUOTA, V1_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def usable_cores(system: Path = Path("/")) -> int:
    """Return how many cores this process may use, by its affinity and the CPU quotas of its cgroups; at least 1.

    A container may often use fewer cores than the machine has. `system` is the root of the file system.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *core_quotas(system)])))


def core_quotas(system: Path) -> Iterator[float]:
    """Yield the limits, in cores, of the cgroups that this process is in and of their parents (Linux; else none).

    Version 2 of cgroups writes "quota period" or "max period" into one file, version 1 two numbers into two files, -1
    for no limit. A container may see its own group as the root. `system` is the root of the file system.
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
    """Return the text of a file; nothing if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory in this process instead of returning it to the system (glibc only).

    The intermediate results of a forward are a few MiB each. To map and zero fresh pages for all of them takes longer
    than many of the computations. It cannot be undone, so it is for programs, not for a library within one.
    """
    if not sys.platform.startswith("linux") or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    libc.mallopt(mmap_max, 0)  # large blocks come from the heap, too
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 64 * 2**20)


def has_bf16_units() -> bool:
    """Return whether this CPU multiplies bf16 matrices in hardware (known for Linux on x86); else fp32 is faster."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())
