"""How many cores a process may use, where a container's limit is less than what the machine has."""

import os
from pathlib import Path

import pytest

from lvdm.fifo.cores import core_quotas, usable_cores


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
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
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


def test_usable_cores_are_at_most_those_of_its_affinity():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= usable_cores() <= len(before)
