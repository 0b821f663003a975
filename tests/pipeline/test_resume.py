"""The command, stopped in every way and started again, makes the video of an undisturbed run."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import imageio.v3 as iio
import pytest
from helpers import (
    BLUE,
    FORKSERVER,
    PATIENCE,
    RED,
    ROOT,
    command,
    exit_status,
    one,
    prompt_file,
    run_in_child,
    start,
    start_ranks,
    wait_until,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lvdm.diffusion.noise import KeyedNoise
from lvdm.io.files import DamagedFileError, remove
from lvdm.pipeline.mode import Mode
from lvdm.pipeline.state import read_state
from lvdm.sampling.plan import fifo

PICTURE = ROOT / "prompts/pictures/000_red_circle.png"
PLAN = fifo(4, 8, lookahead=True)  # of the finished videos
SCHEDULE = json.dumps({"0": RED, "3": BLUE})


@pytest.fixture(scope="module")
def usual(tiny_model) -> list[str | Path]:
    """Flags of a small queue of the smallest model, with every kind of file."""
    return [*tiny_model, "--formats", "gif", "mp4"]


@pytest.fixture(scope="module")
def small(usual) -> list[str | Path]:
    """The same with half as much to compute in a pass: no guidance and no lookahead."""
    return [*usual, "--unconditional_guidance_scale", 1, "--no-lookahead_denoising"]


def written(folder: Path) -> int:
    """Return how many frames of the one video below `folder` are in PNGs that grow."""
    return len(list(folder.glob("*/t2v/fifo.partial/*.png")))


def wait_for(folder: Path, frames: int, child: BaseProcess) -> None:
    wait_until(lambda: written(folder) >= frames, child)


def content(folder: Path, experiment: str = "t2v") -> dict[str, object]:
    """Return all that can be seen of the videos below `folder`."""
    seen: dict[str, object] = {}
    for path in sorted(folder.glob(f"*/{experiment}/**/*")):
        if path.suffix == ".mp4":
            seen[str(path.relative_to(folder))] = iio.imread(path, plugin="FFMPEG").tobytes()
        elif path.suffix in (".png", ".gif"):
            seen[str(path.relative_to(folder))] = path.read_bytes()
    assert seen
    return seen


@pytest.mark.parametrize(
    ("number", "ranks"),
    [(signal.SIGKILL, 1), (signal.SIGTERM, 1), (signal.SIGKILL, 2)],
    ids=["SIGKILL", "SIGTERM", "SIGKILL, 2 ranks"],
)
def test_killed_at_random_moments(tmp_path, usual, number, ranks):
    """20 kills while one video grows; after each of them the MP4 holds all but the last few frames.

    Of two ranks one or both are killed; if one was, the other ends by itself.
    """
    flags = [*usual, "--unconditional_guidance_scale", 1, "-p", prompt_file(tmp_path, RED), "--save_every", 3]
    out, straight = ([*flags, "--output_dir", tmp_path / name] for name in ("out", "straight"))
    rng = random.Random(0)
    lost = 0
    for _ in range(20):
        before = written(tmp_path / "out")
        children = start_ranks([*out, "-l", 1000], tmp_path, ranks)  # more than can be made between the kills
        wait_for(tmp_path / "out", before + 1, children[0])
        time.sleep(rng.uniform(0, 0.2))
        struck = rng.sample(children, rng.randint(1, ranks))
        for child in struck:
            os.kill(child.pid, number)
        for child in children:
            left_alone = 1 if number == signal.SIGKILL else 128 + number
            expected = -number if number == signal.SIGKILL and child in struck else left_alone
            assert exit_status(child) == expected, (tmp_path / "output0").read_text()
        if (frames := written(tmp_path / "out")) >= 8:
            movie = one(tmp_path, "out/*/t2v/t2v.partial.mp4")
            lost = max(lost, frames - len(iio.imread(movie, plugin="FFMPEG")))
    assert frames >= 20
    assert lost <= 8
    for arguments in (out, straight):
        for child in start_ranks([*arguments, "-l", frames + 2], tmp_path, ranks):
            assert exit_status(child) == 0, (tmp_path / "output0").read_text()
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_longer_later(tmp_path, usual):
    """A finished video is extended if more frames are asked for; otherwise it stays as it is."""
    prompts = prompt_file(tmp_path, RED)
    flags = [*usual, "-p", prompts, "-m", "t2v_TTqcache"]
    assert command(*flags, "-l", 11, "--output_dir", tmp_path / "straight") == 0
    for length in (3, 9, 4, 11):
        assert command(*flags, "-l", length, "--output_dir", tmp_path / "out") == 0
    assert content(tmp_path / "out", "t2v_TTqcache_attn1") == content(tmp_path / "straight", "t2v_TTqcache_attn1")
    assert json.loads(one(tmp_path, "out/*/*/*.json").read_text())["frames"] == 11


STEERED = ["--prompt_blend", 2, "--negative_prompt", "a star", "--save_queue"]


@pytest.mark.parametrize(("mode", "more"), [("t2v_seed", []), ("t2v_seed_ar_unilatent", []), ("i2v_STqcache", STEERED)])
def test_all_conditions_are_remembered(tmp_path, visual_model, mode, more):
    mode = str(Mode.parse(mode))
    flags = [*visual_model, "-p", prompt_file(tmp_path, f"{PICTURE};{SCHEDULE}" if more else RED), "-m", mode, *more]
    assert command(*flags, "-l", 8, "--output_dir", tmp_path / "straight") == 0
    for length in (2, 8):
        assert command(*flags, "-l", length, "--output_dir", tmp_path / "out") == 0
    assert content(tmp_path / "out", mode) == content(tmp_path / "straight", mode)


def test_a_stop_in_the_base_clip(tmp_path, small, monkeypatch):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "-l", 2, "--output_dir"]
    draw, purposes = KeyedNoise.draw, []

    def interrupted(noise: KeyedNoise, purpose: str, *others: object) -> Tensor:
        purposes.append(purpose)
        if len(purposes) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(noise, purpose, *others)

    with monkeypatch.context() as patch:
        patch.setattr(KeyedNoise, "draw", interrupted)
        assert command(*flags, tmp_path / "out") == 143
    assert len(set(purposes)) == 2, "its first noise, and that of its steps"
    assert not list(tmp_path.glob("out/latents/*"))
    assert not written(tmp_path / "out")
    assert command(*flags, tmp_path / "out") == command(*flags, tmp_path / "straight") == 0
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_a_picture_that_is_deleted_costs_only_its_video(tmp_path, visual_model):
    pictures = [tmp_path / name for name in ("first.png", "second.png")]
    for path in pictures:
        path.write_bytes(PICTURE.read_bytes())
    lines = prompt_file(tmp_path, *(f"{path};{RED}" for path in pictures))
    child = start([*visual_model, "-m", "i2v", "-p", lines, "-l", 6, "--output_dir", tmp_path / "out"], tmp_path)
    wait_until(lambda: list(tmp_path.glob("out/*/i2v/.lock")), child)
    pictures[1].unlink()
    assert exit_status(child) == 1
    said = (tmp_path / "output0").read_text()
    assert "second.png" in said
    assert "1 done, 0 skipped, 1 failed" in said


def test_endless_until_ctrl_c(tmp_path, small):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out"]
    for number, status, frames in ((signal.SIGINT, 130, 3), (signal.SIGTERM, 143, 12)):
        child = start([*flags, "--endless"], tmp_path)
        wait_for(tmp_path / "out", frames, child)
        os.kill(child.pid, number)
        assert exit_status(child) == status
        assert "same command" in (tmp_path / "output0").read_text()
    length = json.loads(one(tmp_path, "out/*/t2v/t2v.json").read_text())["frames"]
    assert length >= 12
    assert len(iio.imread(one(tmp_path, "out/*/t2v/t2v.mp4"), plugin="FFMPEG")) == length
    straight = [*small, "-p", tmp_path / "prompts.txt", "-l", length, "--output_dir", tmp_path / "straight"]
    assert command(*straight) == 0
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_a_video_without_its_state_or_a_file_is_not_complete(tmp_path, small, capfd):
    """A finished video that lost a file is reported; one that lost its state is kept but cannot be extended."""
    flags = [*small, "-p", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out"]
    assert command(*flags, "-l", 3) == 0
    before = content(tmp_path / "out")
    folder = one(tmp_path, "out/*/t2v")
    (folder / "t2v.state").rename(tmp_path / "t2v.state")
    assert command(*flags, "-l", 3) == 0
    assert "1 skipped" in capfd.readouterr().out
    assert command(*flags, "-l", 5) == 1
    assert "--overwrite" in capfd.readouterr().err
    assert command(*flags, "-l", 3, "--eta", 0) == 1
    assert "--eta was 1.0" in capfd.readouterr().err
    assert content(tmp_path / "out") == before
    (tmp_path / "t2v.state").rename(folder / "t2v.state")
    (folder / "t2v.gif").unlink()
    assert command(*flags, "-l", 3) == 1
    assert "t2v" in capfd.readouterr().err


def test_settings_without_effect_may_change(tmp_path, small, capfd):
    flags = [*small, "--formats", "gif"]
    flags += ["-p", prompt_file(tmp_path, RED), "-l", 3, "--output_dir", tmp_path / "out"]
    assert command(*flags) == 0
    assert command(*flags, "--qcache_weight", 0.5, "--crf", 30, "--prompt_blend", 4) == 0
    assert "1 skipped" in capfd.readouterr().out


def test_endless_and_prompt_blend_name_the_prompt_that_does_not_fit(tmp_path, small, capfd):
    """The error names the entry, and the flag that it comes from."""

    def error_of(*flags):
        assert command(*small, *flags, "--output_dir", tmp_path / "out") == 2
        return capfd.readouterr().err

    file = prompt_file(tmp_path, RED, BLUE)
    second = "is the second of 2 prompts; give only one\n"
    assert error_of("--endless", "-p", file).endswith(f"one video, and --prompt_file {str(file)!r}, line 2 {second}")
    assert error_of("--endless", "--prompt", RED, "--prompt", BLUE).endswith(f"--prompt number 2 {second}")
    table = prompt_file(tmp_path, "prompt,new_video_length", f"{RED},7", name="a.csv")
    said = f"--endless: has no length, and --prompt_file {str(table)!r}, line 2 says new_video_length 7; leave"
    assert said in error_of("--endless", "-p", table)
    schedule = json.dumps({0: RED, 4: BLUE, 9: RED})
    said = error_of("--prompt_blend", 5, "--prompt", schedule)
    assert said == "error: --prompt_blend 5: must be at most 4, as --prompt number 1 has a prompt for only 4 frames\n"


def test_a_second_signal_ends_the_run_at_once(tmp_path, small):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "-l", 20, "--output_dir"]
    child = start([*flags, tmp_path / "out"], tmp_path)
    wait_for(tmp_path / "out", 2, child)
    os.kill(child.pid, signal.SIGINT)
    os.kill(child.pid, signal.SIGTERM)
    assert exit_status(child) in (130, 143)
    assert "goes on where it ended" not in (tmp_path / "output0").read_text()
    assert command(*flags, tmp_path / "out") == command(*flags, tmp_path / "straight") == 0
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_a_schedule_of_prompts(tmp_path):
    """It has the frames of its first prompt until the switch is within the queue, and others after it."""
    line = json.dumps({"0": RED, "5": BLUE})
    flags = ["--video_length", 4, "-n", 1, "-l", 7, "--device", "cpu", "--save_frames", "-p"]
    assert command(*flags, prompt_file(tmp_path, RED, line), "--output_dir", tmp_path / "out") == 0
    plain = sorted(one(tmp_path, "out/a_red*").glob("t2v/fifo/*"))
    scheduled = sorted(one(tmp_path, "out/0_a_red*").glob("t2v/fifo/*"))
    assert [path.read_bytes() for path in scheduled[:3]] == [path.read_bytes() for path in plain[:3]]
    assert iio.imread(plain[-1]).mean() < 60  # black
    assert iio.imread(scheduled[-1])[..., 2].mean() > 100  # on its way to pink


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (["--seed", 5], "--seed"),
        (["--eta", 0.5], "--eta"),
        (["--formats", "gif"], "--formats"),
        (["--no-lookahead_denoising"], "--lookahead_denoising"),
        (["--precision", "fp32"], "--precision"),
    ],
)
def test_a_changed_setting_is_named(tmp_path, usual, capfd, finished, change, name):
    before = content(finished)
    capfd.readouterr()
    assert command(*usual, "--precision", "bf16", *change, *asked(finished)) == 2
    error = capfd.readouterr().err.strip()
    assert "\n" not in error
    assert all(part in error for part in (name, "--overwrite"))
    assert content(finished) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory, usual) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    prompt_file(folder, RED)
    assert command(*usual, "--precision", "bf16", *asked(folder)) == 0
    return folder


def asked(folder: Path) -> list[object]:
    return ["-l", 3, "-p", folder / "prompts.txt", "--output_dir", folder]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_states_are_never_trusted(finished, data):
    """Flipped bits, missing or added bytes: whatever the damage is, it is reported."""
    path = one(finished, "*/t2v/t2v.state")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for place, bit in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 7)), max_size=5)):
        damaged[place] ^= 1 << bit
    damaged = damaged[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))] + data.draw(st.binary(max_size=9))
    copy = finished / "copy.state"
    copy.write_bytes(damaged)
    if damaged == whole:
        assert read_state(copy, PLAN).frames == 3
    else:
        with pytest.raises(DamagedFileError, match=r"copy\.state"):
            read_state(copy, PLAN)


def test_a_damaged_state_is_set_aside(tmp_path, small, capfd):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out"]
    assert command(*flags, "-l", 3) == 0
    before = content(tmp_path / "out")
    path = one(tmp_path, "out/*/t2v/t2v.state")
    damaged = path.read_bytes()[:-7]
    path.write_bytes(damaged)
    assert command(*flags, "-l", 3) == 0
    assert "t2v.state.damaged" in capfd.readouterr().err
    assert path.with_name("t2v.state.damaged").read_bytes() == damaged
    assert content(tmp_path / "out") == before


def test_a_damaged_state_leaves_the_growing_files_beside_it(tmp_path, small, capfd):
    """The growing files are kept under another name; half-written files of killed processes are removed."""
    flags = [*small, "-p", prompt_file(tmp_path, RED), "-l", 12, "--save_every", 3, "--output_dir", tmp_path / "out"]
    child = start(flags, tmp_path)
    wait_for(tmp_path / "out", 9, child)
    os.kill(child.pid, signal.SIGKILL)
    exit_status(child)
    state = one(tmp_path, "out/*/t2v/t2v.state")
    grown = sorted(path.read_bytes() for path in state.parent.glob("fifo.partial/*"))
    leftover = state.with_name(".t2v.1234567.partial.mp4")
    leftover.write_bytes(b"half")
    earlier = state.with_name("t2v.partial.mp4.damaged")  # set aside when another state was damaged
    earlier.write_bytes(b"of another time")
    os.truncate(state, 2**40)  # larger than the memory
    assert command(*flags) == 0
    assert "set aside: t2v.state.damaged, " in capfd.readouterr().err
    assert sorted(path.read_bytes() for path in state.parent.glob("fifo.partial.damaged/*")) == grown
    assert not leftover.exists()
    assert earlier.read_bytes() == b"of another time"
    earlier.unlink()
    assert command(*flags[:-1], tmp_path / "straight") == 0
    for path in state.parent.glob("fifo.partial.damaged"):
        remove(path)
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_overwriting_goes_on_after_a_stop(tmp_path, small, capfd):
    """All videos of the prompt file are reset at the start, also those that are not reached before the stop."""
    flags = [*small, "-p", prompt_file(tmp_path, RED, BLUE), "--output_dir", tmp_path / "out"]
    assert command(*flags, "-l", 3) == 0
    child = start([*flags, "-l", 9, "--seed", 7, "--overwrite"], tmp_path)
    wait_until(lambda: list(tmp_path.glob("out/*red*/t2v/fifo.partial/00003.png")), child)
    os.kill(child.pid, signal.SIGINT)
    assert exit_status(child) == 130
    remove(one(tmp_path, "out/*red*/t2v/fifo.partial"))
    assert command(*flags, "-l", 9, "--seed", 7) == 1  # and not with the frames of the first video
    assert "fifo.partial, in which this video was growing, is gone" in capfd.readouterr().err
    assert command(*flags, "-l", 9, "--seed", 7, "--overwrite") == 0
    assert command(*flags[:-1], tmp_path / "straight", "-l", 9, "--seed", 7) == 0
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_with_ranks_a_failure_costs_one_video(tmp_path, small):
    flags = [*small, "-p", prompt_file(tmp_path, RED, BLUE), "--output_dir", tmp_path / "out"]
    assert command(*flags, "-l", 2) == 0
    one(tmp_path, "out/*red*/t2v/t2v.state").unlink()
    for child in start_ranks([*flags, "-l", 4], tmp_path, 2):
        assert exit_status(child) == 1
    assert "1 done, 0 skipped, 1 failed" in (tmp_path / "output0").read_text()
    assert json.loads(one(tmp_path, "out/*blue*/t2v/t2v.json").read_text())["frames"] == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_no_rank_waits_for_one_that_ended(tmp_path, small, number):
    """Of two ranks that share prompts the first has finished, and waits, when the other is killed or stopped."""
    table = prompt_file(tmp_path, f"prompt,new_video_length\n{RED},1\n{BLUE},1000", name="prompts.csv")
    flags = [*small, "-p", table, "--output_dir", tmp_path / "out", "--parallel", "prompts"]
    waiting, busy = start_ranks(flags, tmp_path, 2)
    wait_until(lambda: list(tmp_path.glob("out/*red*/t2v/t2v.json")) and written(tmp_path / "out"), busy)
    waiting.join(timeout=2)
    assert waiting.is_alive()
    os.kill(busy.pid, number)
    assert exit_status(busy) == (-number if number == signal.SIGKILL else 128 + number)
    assert exit_status(waiting) == 0
    assert "Traceback" not in (tmp_path / "output0").read_text()


def test_a_run_goes_on_when_its_stderr_is_closed(tmp_path, small):
    """As when the terminal is closed, or the program at the other end of a pipe has ended."""
    flags = [*small, "-p", prompt_file(tmp_path, RED, BLUE), "-l", 6, "--output_dir", tmp_path / "out"]
    words = [sys.executable, "videocrafter_main.py", *map(str, flags)]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE) as process:
        wait_until(lambda: list(tmp_path.glob("out/*/t2v/.lock")), process)
        process.stderr.close()
        assert process.wait(PATIENCE) == 0
    assert len(list(tmp_path.glob("out/*/t2v/t2v.json"))) == 2


def test_a_record_does_not_make_a_video_longer(tmp_path, small, capfd):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out"]
    assert command(*flags, "-l", 3) == 0
    record = one(tmp_path, "out/*/t2v/t2v.json")
    record.write_text(record.read_text().replace('"frames": 3', '"frames": 93'))
    assert command(*flags, "-l", 6) == 0
    assert "1 done" in capfd.readouterr().out
    assert json.loads(record.read_text())["frames"] == 6


def test_two_processes_do_not_write_one_video(tmp_path, small, capfd):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out", "-l"]
    child = start([*flags, 1000], tmp_path)
    wait_for(tmp_path / "out", 1, child)
    assert command(*flags, 1000) == 1
    assert str(child.pid) in capfd.readouterr().err
    os.kill(child.pid, signal.SIGKILL)  # its lock goes with it
    assert exit_status(child) == -signal.SIGKILL
    assert command(*flags, written(tmp_path / "out") + 1) == 0


def test_nothing_is_written_through_a_link(tmp_path, small, capfd):
    flags = [*small, "-p", prompt_file(tmp_path, RED), "-l", 3, "--output_dir", tmp_path / "out"]
    assert command(*flags) == 0
    folder = one(tmp_path, "out/*/t2v")
    for path in folder.iterdir():
        remove(path)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert command(*flags) == 1
    assert "is a link" in capfd.readouterr().err
    (tmp_path / "out/latents").rename(tmp_path / "clips")
    (tmp_path / "out/latents").symlink_to(tmp_path / "elsewhere")
    folder.unlink()
    assert command(*flags) == 1
    assert "latents is a link" in capfd.readouterr().err
    (tmp_path / "out/latents").unlink()
    folder.mkdir()
    (folder / "t2v.partial.gif").symlink_to(tmp_path / "elsewhere" / "a.gif")
    assert command(*flags) == 0
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_run_resumes_after_a_full_disk(tmp_path, small):
    """A limit on the size of files stands for a full disk: the run ends with an error, and resumes without it."""
    flags = [*small, "-p", prompt_file(tmp_path, RED), "-l", 16, "--save_every", 3, "--output_dir"]
    child = FORKSERVER.Process(target=run_with_little_room, args=([*flags, tmp_path / "out"], tmp_path / "output0"))
    child.start()
    assert exit_status(child) == 1
    assert "File too large" in (tmp_path / "output0").read_text()
    assert written(tmp_path / "out") > 4
    assert command(*flags, tmp_path / "out") == command(*flags, tmp_path / "straight") == 0
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def run_with_little_room(arguments: Sequence[object], output: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    run_in_child(arguments, output, {})


def test_debug_writes_a_log(tmp_path, usual):
    flags = [*usual, "-p", prompt_file(tmp_path, RED), "-l", 3, "--output_dir", tmp_path / "out"]
    assert command(*flags, "--debug") == 0
    log = one(tmp_path, "out/*/t2v/t2v.log").read_text()
    assert "seed=321" in log
    assert re.search(r"pass 7: [0-9.]+ s, 3 frames finished", log)


def test_the_commands_of_the_readme(tmp_path, tiny_model):
    """Stopped and resumed, extended, and endless: the commands of README, with the smallest model and queue."""
    section = (ROOT / "README.md").read_text().split("## Runs that cannot be lost")[1].split("\n## ")[0]
    first, longer, endless = (
        [*words.split(), *tiny_model, "-n", 1, "--unconditional_guidance_scale", 1, "--output_dir", tmp_path / "out"]
        for words in re.findall(r"python videocrafter_main\.py ([^\n]*)", section)
    )
    asked, more = (int(words[words.index("--new_video_length") + 1]) for words in (first, longer))
    for arguments, frames, number in (
        (first, 5, signal.SIGINT),
        (first, asked, None),
        (longer, asked + 5, signal.SIGKILL),
        (endless, asked + 10, signal.SIGTERM),
    ):
        if number is None:
            assert command(*arguments) == 0
        else:
            child = start(arguments, tmp_path)
            wait_for(tmp_path / "out", frames, child)
            os.kill(child.pid, number)
            assert exit_status(child) == (-number if number == signal.SIGKILL else 128 + number)
        if number in (None, signal.SIGTERM):
            movie = iio.imread(one(tmp_path, "out/*/t2v/t2v.mp4"), plugin="FFMPEG")
            assert len(movie) == frames if number is None else len(movie) >= frames
    assert more > asked
