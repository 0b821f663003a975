"""Several processes for one video or one prompt file, as torchrun starts them, over Gloo on a CPU."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from helpers import BLUE, RED, ROOT, command, one, prompt_file

from lvdm.runtime.distributed import Ranks

SMALL = ["--video_length", "4", "-n", "3", "--device", "cpu", "--precision", "fp32", "--save_frames"]


def torchrun(
    processes: int, arguments: Sequence[object], said: Path, *, place: Sequence[str] = ("--standalone",)
) -> subprocess.Popen:
    """The command in several processes on a machine; what they say is in the file `said`. place: this machine's among
    several."""
    launcher = [sys.executable, "-m", "torch.distributed.run", *place, f"--nproc_per_node={processes}"]
    with said.open("w") as file:
        return subprocess.Popen(
            [*launcher, "videocrafter_main.py", *map(str, arguments)], cwd=ROOT, stdout=file, stderr=file
        )


def frames_below(folder: Path) -> np.ndarray:
    return np.stack([iio.imread(path) for path in sorted(folder.glob("*/t2v/fifo/*.png"))]).astype(int)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_two_and_three_ranks_make_the_video_of_one(tmp_path):
    """3 partitions with lookahead are 6 windows, a base clip is one: shares are even and not, and empty."""
    flags = [*SMALL, "-l", 6, "-p", prompt_file(tmp_path, RED, BLUE), "--output_dir"]
    assert command(*flags, tmp_path / "1") == 0
    for size in (2, 3):
        said = tmp_path / f"said{size}"
        assert torchrun(size, [*flags, tmp_path / f"{size}"], said).wait() == 0, said.read_text()
        assert said.read_text().count("2 done, 0 skipped, 0 failed") == 1
        assert abs(frames_below(tmp_path / f"{size}") - frames_below(tmp_path / "1")).max() <= 1


def test_ranks_stop_together_and_go_on_alone(tmp_path):
    flags = [*SMALL, "-p", prompt_file(tmp_path, RED), "--formats", "mp4", "-l", 60, "--output_dir"]
    process = torchrun(2, [*flags, tmp_path / "out"], tmp_path / "said")
    while not list(tmp_path.glob("out/*/t2v/fifo.partial/00005.png")):
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.05)
    process.terminate()  # torchrun hands it on
    assert process.wait() != 0
    assert "the same command goes on" in (tmp_path / "said").read_text()
    assert command(*flags, tmp_path / "out") == command(*flags, tmp_path / "straight") == 0
    assert abs(frames_below(tmp_path / "out") - frames_below(tmp_path / "straight")).max() <= 1
    assert len(iio.imread(one(tmp_path, "out/*/t2v/t2v.mp4"), plugin="FFMPEG")) == 60


@pytest.mark.parametrize("machines", [1, 2])
def test_a_rank_that_dies_ends_the_run_by_name(tmp_path, machines):
    """On its machine, and on others, whose torchrun does not know of it."""
    flags = [*SMALL, "-p", prompt_file(tmp_path, RED), "--save_every", 2, "--output_dir"]
    place = (
        ["--nnodes=2", "--master_addr=localhost", f"--master_port={free_port()}"] if machines > 1 else ["--standalone"]
    )
    launchers = [
        torchrun(
            2 // machines,
            [*flags, tmp_path / "out", "-l", 500],
            tmp_path / f"said{node}",
            place=[*place, f"--node_rank={node}"],
        )
        for node in range(machines)
    ]
    try:
        while not list(tmp_path.glob("out/*/t2v/fifo.partial/00004.png")):
            for node, launcher in enumerate(launchers):
                assert launcher.poll() is None, (tmp_path / f"said{node}").read_text()
            time.sleep(0.05)
        ranks = {}
        for child in (child for launcher in launchers for child in children(launcher.pid)):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks |= {variable[5:]: child for variable in variables if variable.startswith(b"RANK=")}
        killed = time.monotonic()
        os.kill(ranks[b"1"], signal.SIGKILL)
        for launcher in launchers:
            assert launcher.wait(timeout=60) != 0
        assert time.monotonic() - killed < 60
    finally:
        for launcher in launchers:
            launcher.terminate()
    said = "".join((tmp_path / f"said{node}").read_text() for node in range(machines))
    assert "rank      : 1" in said
    assert "-9" in said
    assert "error: another rank is gone" in said
    assert "rank 0 of 2 failed" not in said
    assert 'videocrafter_main.py", line' not in said  # as in a traceback of ours; torchrun has its own

    assert command(*flags, tmp_path / "out", "-l", 12) == command(*flags, tmp_path / "straight", "-l", 12) == 0
    assert abs(frames_below(tmp_path / "out")[:12] - frames_below(tmp_path / "straight")).max() <= 1


def test_ranks_share_the_prompts(tmp_path):
    flags = [*SMALL, "-l", 3, "-p", prompt_file(tmp_path, RED, BLUE, RED), "--output_dir"]
    said = tmp_path / "said"
    assert torchrun(2, [*flags, tmp_path / "out", "--parallel", "prompts"], said).wait() == 0, said.read_text()
    assert "2 done" in said.read_text()
    assert "1 done" in said.read_text()
    assert command(*flags, tmp_path / "straight") == 0
    assert np.array_equal(frames_below(tmp_path / "out"), frames_below(tmp_path / "straight"))

    blue = one(tmp_path, "out/*blue*")
    shutil.rmtree(blue)
    blue.touch()  # where a folder must be: rank 1's only video fails at once, while rank 0 makes two
    assert torchrun(2, [*flags, tmp_path / "out", "-l", 9, "--parallel", "prompts"], said).wait() == 1
    assert "0 done, 0 skipped, 1 failed" in said.read_text()
    assert "2 done, 0 skipped, 0 failed" in said.read_text()


@pytest.mark.parametrize(("total", "size"), [(1, 3), (6, 2), (7, 3), (2, 3), (16, 5)])
def test_shares_are_complete(total, size):
    shares = [Ranks(rank, size).share(total) for rank in range(size)]
    assert [row for share in shares for row in range(total)[share]] == list(range(total))
    assert max(share.stop - share.start for share in shares) == -(-total // size)
