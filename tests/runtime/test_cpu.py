"""How many cores a process may use, where a container's limit is less than what the machine has; freed memory."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from lvdm.runtime.cpu import core_quotas, usable_cores


def system_with(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "quotas"),
    [
        ({}, []),
        ({"proc/self/cgroup": "0::/\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, []),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, [2.5]),
        (
            {
                "proc/self/cgroup": "0::/jobs/mine\n",
                "sys/fs/cgroup/jobs/mine/cpu.max": "max 100000\n",
                "sys/fs/cgroup/jobs/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/others/cpu.max": "100000 100000\n",
            },
            [4, 8],
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/docker/ab:c\n4:cpu,cpuacct:/docker/ab:c\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/cpu.cfs_quota_us": "1\n",
                "sys/fs/cgroup/memory/cpu.cfs_period_us": "1\n",
            },
            [1.5],
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            [],
        ),
    ],
)
def test_quotas_are_those_of_the_own_groups_and_their_parents(tmp_path, files, quotas):
    assert list(core_quotas(system_with(tmp_path, files))) == quotas


@pytest.mark.parametrize("group", ["", "0", "0::", "x:y", "0::/\udcff", "0::/../.."])
@pytest.mark.parametrize("limit", ["", "100000", "100000 x", "x 100000", "100000 0", "max"])
def test_a_file_that_is_not_understood_sets_no_limit(tmp_path, group, limit):
    system = system_with(tmp_path, {"sys/fs/cgroup/cpu.max": limit})
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(f"{group}\n".encode(errors="surrogateescape"))
    assert list(core_quotas(system)) == []


@pytest.mark.parametrize(("quota", "cores"), [(50000, 1), (100000, 1), (190000, 1), (10**9, None)])
def test_usable_cores_are_at_most_what_a_quota_says(tmp_path, quota, cores):
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"}
    assert usable_cores(system_with(tmp_path, files)) == (cores or len(os.sched_getaffinity(0)))


def test_usable_cores_are_at_most_those_of_its_affinity():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= usable_cores() <= len(before)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone has these settings")
def test_freed_memory_is_kept():
    """In a process of its own, whose C library's settings are those that it begins with."""
    code = """
import ctypes
from lvdm.runtime.cpu import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4 // 1024
def use_64_mib():
    block = libc.malloc(64 * 2**20)
    ctypes.memset(block, 1, 64 * 2**20)
    libc.free(block)
before = resident()
use_64_mib()
print(resident() - before < 16)
keep_freed_memory()
use_64_mib()
print(resident() - before > 48)
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True"] * 2
