"""How many cores a process may use, where a container's limit is less than what the machine has."""

import os
from pathlib import Path

import pytest

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
def test_quotas_are_those_of_its_own_groups_and_the_ones_around(tmp_path, files, quotas):
    assert list(core_quotas(system_with(tmp_path, files))) == quotas


@pytest.mark.parametrize("group", ["", "0", "0::", "x:y", "0::/\udcff", "0::/../.."])
@pytest.mark.parametrize("limit", ["", "100000", "100000 x", "x 100000", "100000 0", "max"])
def test_what_is_not_understood_is_no_limit(tmp_path, group, limit):
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
