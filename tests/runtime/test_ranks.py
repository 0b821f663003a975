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
from helpers import (
    BLUE,
    PATIENCE,
    RED,
    ROOT,
    command,
    exit_status,
    one,
    png_frames,
    prompt_file,
    start_ranks,
    wait_until,
)

from lvdm.runtime.distributed import Ranks


@pytest.fixture(scope="module")
def small(tiny_model) -> list[str | Path]:
    """Flags of a queue with 3 partitions, which with lookahead are 6 windows; a base clip is one."""
    return [*tiny_model, "-n", "3"]


def torchrun(
    processes: int, arguments: Sequence[object], said: Path, *, place: Sequence[str] = ("--standalone",)
) -> subprocess.Popen:
    """Start the command in several processes of a machine, which write stdout and stderr to the file `said`.

    place: torchrun's flags that say where this machine is among several.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", *place, f"--nproc_per_node={processes}"]
    with said.open("w") as file:
        return subprocess.Popen(
            [*launcher, "videocrafter_main.py", *map(str, arguments)], cwd=ROOT, stdout=file, stderr=file
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_make_the_video_of_one(tmp_path, small, size):
    """Shares of windows are even with 2 ranks and uneven with 3; of the base clip's single window some are empty."""
    flags = [*small, "-l", 6, "-p", prompt_file(tmp_path, RED, BLUE), "--output_dir"]
    ranks = start_ranks([*flags, tmp_path / "many"], tmp_path, size)
    assert command(*flags, tmp_path / "one") == 0
    assert [exit_status(rank) for rank in ranks] == [0] * size
    said = "".join((tmp_path / f"output{rank}").read_text() for rank in range(size))
    assert said.count("2 done, 0 skipped, 0 failed") == 1
    assert abs(png_frames(tmp_path / "many") - png_frames(tmp_path / "one")).max() <= 1


def test_ranks_stop_together_and_one_process_resumes(tmp_path, small):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "--formats", "mp4"]
    process = torchrun(2, [*flags, "-l", 9999, "--output_dir", tmp_path / "out"], tmp_path / "said")
    wait_until(lambda: list(tmp_path.glob("out/*/t2v/fifo.partial/00005.png")), process)
    process.terminate()  # torchrun passes it on
    assert process.wait() != 0
    assert "the same command goes on" in (tmp_path / "said").read_text()
    length = len(list(tmp_path.glob("out/*/t2v/fifo.partial/*.png"))) + 9
    for folder in ("out", "straight"):
        assert command(*flags, "-l", length, "--output_dir", tmp_path / folder) == 0
    assert abs(png_frames(tmp_path / "out") - png_frames(tmp_path / "straight")).max() <= 1
    assert len(iio.imread(one(tmp_path, "out/*/t2v/t2v.mp4"), plugin="FFMPEG")) == length


@pytest.mark.parametrize("machines", [1, 2])
def test_a_rank_that_dies_ends_the_run_by_name(tmp_path, small, machines):
    """On its machine, and on others, whose torchrun does not know of it."""
    flags = [*small, "-p", prompt_file(tmp_path, RED), "--save_every", 2]
    place = (
        ["--nnodes=2", "--master_addr=localhost", f"--master_port={free_port()}"] if machines > 1 else ["--standalone"]
    )
    launchers = [
        torchrun(
            2 // machines,
            [*flags, "-l", 9999, "--output_dir", tmp_path / "out"],
            tmp_path / f"said{node}",
            place=[*place, f"--node_rank={node}"],
        )
        for node in range(machines)
    ]
    try:
        wait_until(lambda: list(tmp_path.glob("out/*/t2v/fifo.partial/00004.png")), launchers[0])
        ranks = {}
        for child in (child for launcher in launchers for child in children(launcher.pid)):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks |= {variable[5:]: child for variable in variables if variable.startswith(b"RANK=")}
        os.kill(ranks[b"1"], signal.SIGKILL)
        killed = time.monotonic()
        assert all(launcher.wait(PATIENCE) != 0 for launcher in launchers)
        assert time.monotonic() - killed < 60  # ranks wait for one another for half an hour
    finally:
        for launcher in launchers:
            launcher.terminate()
    said = "".join((tmp_path / f"said{node}").read_text() for node in range(machines))
    assert "rank      : 1" in said
    assert "-9" in said
    assert "error: another rank is gone" in said
    assert "rank 0 of 2 failed" not in said
    assert 'videocrafter_main.py", line' not in said  # as in a traceback of ours; torchrun has its own

    length = len(list(tmp_path.glob("out/*/t2v/fifo.partial/*.png"))) + 9
    for folder in ("out", "straight"):
        assert command(*flags, "-l", length, "--output_dir", tmp_path / folder) == 0
    assert abs(png_frames(tmp_path / "out") - png_frames(tmp_path / "straight")).max() <= 1


def test_ranks_share_the_prompts(tmp_path, small):
    flags = [*small, "-l", 3, "-p", prompt_file(tmp_path, RED, BLUE, RED), "--output_dir"]
    ranks = start_ranks([*flags, tmp_path / "out", "--parallel", "prompts"], tmp_path, 2)
    assert [exit_status(rank) for rank in ranks] == [0, 0]
    assert "2 done" in (tmp_path / "output0").read_text()
    assert "1 done" in (tmp_path / "output1").read_text()
    assert command(*flags, tmp_path / "straight") == 0
    assert np.array_equal(png_frames(tmp_path / "out"), png_frames(tmp_path / "straight"))

    blue = one(tmp_path, "out/*blue*")
    shutil.rmtree(blue)
    blue.touch()  # where a folder must be: rank 1's only video fails at once, while rank 0 makes two
    said = tmp_path / "said"
    assert torchrun(2, [*flags, tmp_path / "out", "-l", 9, "--parallel", "prompts"], said).wait() == 1
    assert "0 done, 0 skipped, 1 failed" in said.read_text()
    assert "2 done, 0 skipped, 0 failed" in said.read_text()


@pytest.mark.parametrize(("total", "size"), [(1, 3), (6, 2), (7, 3), (2, 3), (16, 5)])
def test_shares_are_complete(total, size):
    shares = [Ranks(rank, size).share(total) for rank in range(size)]
    assert [row for share in shares for row in range(total)[share]] == list(range(total))
    assert max(share.stop - share.start for share in shares) == -(-total // size)
