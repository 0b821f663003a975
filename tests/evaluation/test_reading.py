"""Videos as other programs leave them: of one frame, of odd sizes, damaged, at a changing rate, twice in a tree."""

import json
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from lvdm.evaluation.measure import Instruments, measure
from lvdm.evaluation.reading import UnreadableVideoError, find_sources, read_frames
from lvdm.evaluation.report import Report, markdown
from lvdm.io.writers.gif import GifWriter


def pictures(count: int, *, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """A pattern that moves by a pixel a frame."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    pattern = coarse.repeat(4, 0).repeat(4, 1)[:height, :width]
    return [np.roll(pattern, at, axis=1) for at in range(count)]


def write_pictures(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        iio.imwrite(folder / f"{number}.png", frame)
    return folder


def write_film(path: Path, frames: list[np.ndarray], *flags: str) -> Path:
    height, width, _ = frames[0].shape
    source = f"-y -v error -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r 8 -i -".split()
    command = [get_ffmpeg_exe(), *source, "-c:v", "libx264", "-crf", "10", *flags, str(path)]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    return path


def measured(path: Path):
    (source,), problems = find_sources([path])
    assert problems == []
    return measure(source, Instruments())


def test_a_rate_that_changes_repeats_no_frame(tmp_path):
    """From frame 20 on each stays three times as long: a player repeats it, the file does not."""
    slower = ["-vf", "setpts='if(lt(N,20),N,20+(N-20)*3)/8/TB'", "-fps_mode", "vfr"]
    one = measured(write_film(tmp_path / "a.mp4", pictures(40), *slower))
    assert (one.frames, one.duplicates, one.seams) == (40, [], [])
    assert one.numbers["motion"] == pytest.approx(1, abs=0.1)


def test_frames_of_a_film_are_those_that_were_written(tmp_path):
    """In a name that ffmpeg could take for something else; 61x91 is a size that H.264 has in 4:4:4 alone."""
    frames = pictures(12, height=61, width=91)
    path = write_film(tmp_path / "a:%03d #1.mkv", frames, "-pix_fmt", "yuv444p")
    read = list(read_frames(path))
    assert np.abs(np.array(read, int) - np.array(frames, int)).mean() < 6
    assert read[0].flags.writeable
    with pytest.raises(StopIteration):  # who wants one frame ends ffmpeg, too
        (lambda frames: (next(frames), frames.close(), next(frames)))(read_frames(path))


@pytest.mark.parametrize("damage", ["cut", "holes", "no video", "empty"])
def test_a_damaged_film_is_no_shorter_film(damage, tmp_path):
    path = write_film(tmp_path / "a.mp4", pictures(40), "-movflags", "+faststart")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) * 2 // 3]
    elif damage == "holes":
        middle = len(data) // 2
        data[middle : middle + 3000] = bytes(3000)
    elif damage == "no video":
        data = bytearray(b"words")
    else:
        data.clear()
    path.write_bytes(data)
    with pytest.raises(UnreadableVideoError, match=r"^[^\[]*a\.mp4: \w"):
        measured(path)


def test_a_damaged_gif_is_one_sentence(tmp_path):
    with GifWriter(tmp_path / "a.gif", fps=8, comment="") as sink:
        for frame in pictures(3, height=16, width=24):
            sink.write(frame)
    data = (tmp_path / "a.gif").read_bytes()
    for length in range(1, len(data) - 1, 17):
        (tmp_path / "cut.gif").write_bytes(data[:length])
        with suppress(UnreadableVideoError):
            assert len(list(read_frames(tmp_path / "cut.gif"))) <= 3


@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 96), (2, 64, 96), (2, 16, 17), (3, 61, 91)])
def test_short_and_odd_videos(count, height, width, tmp_path):
    folder = write_pictures(tmp_path / "video", pictures(count, height=height, width=width))
    (folder / ".DS_Store").write_bytes(b"of a file manager")
    (folder / "._0.png").write_bytes(b"of a file manager")
    one = measured(folder)
    assert (one.frames, one.height, one.width) == (count, height, width)
    assert ("motion" in one.numbers) == (count > 1)
    assert one.numbers.get("motion", 1) == pytest.approx(1, abs=0.1)
    assert "brightness_drift" not in one.numbers  # there are no two windows


def test_frames_that_do_not_fit_are_named(tmp_path):
    sizes = write_pictures(tmp_path / "sizes", [*pictures(3), *pictures(1, height=32)])
    with pytest.raises(UnreadableVideoError, match=r"sizes: frame 3 is uint8 \(32, 96, 3\), expected uint8 \(64, 96"):
        measured(sizes)
    small = write_pictures(tmp_path / "small", pictures(2, height=15))
    with pytest.raises(UnreadableVideoError, match="15x96, at least 16x16"):
        measured(small)
    deep = write_pictures(tmp_path / "deep", pictures(2))
    Image.fromarray(pictures(1)[0][..., 0].astype(np.uint16) * 257).save(deep / "1.png")
    with pytest.raises(UnreadableVideoError, match=r"deep: 1\.png is not of 8 bits"):
        measured(deep)


def result(root: Path, name: str, experiment: str, level: int, **others: object) -> None:
    """A result of two windows, the second of which is brighter by `level`; the name is that of the prompt, too."""
    folder = root / name / experiment
    levels = np.repeat([60, 60 + level], 16)
    write_pictures(folder / "fifo", [np.full((16, 16, 3), value, np.uint8) for value in levels])
    record = {"prompt": name, "seed": 0} | others
    (folder / f"{experiment}.json").write_text(json.dumps(record))


def test_a_bar_in_a_name_is_no_column_and_sizes_are_told(tmp_path):
    folders = [tmp_path / name for name in ("a|b", "c")]
    for folder, width in zip(folders, (96, 128), strict=True):
        write_pictures(folder / "cat", pictures(2, width=width))
    sources, _ = find_sources(folders)
    text = markdown(Report([(one, measure(one, Instruments())) for one in sources], "a|b", {}, {}, []))
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert columns == {11}
    assert "several sizes" in text


def drifts(*paths: Path, baseline: str | None = None) -> dict[str, tuple]:
    """Experiment -> how many videos, their mean drift, and the difference to the baseline, if there is one."""
    sources, problems = find_sources(paths)
    assert problems == []
    report = Report([(one, measure(one, Instruments())) for one in sources], baseline, {}, {}, [])
    rows = [row for row in report.rows if row.metric == "brightness_drift"]
    return {
        row.experiment: (row.summary.videos, round(row.summary.mean), row.against and round(row.against.mean))
        for row in rows
    }


def test_models_in_one_tree_are_not_mixed(tmp_path):
    for model, level in (("a", 10), ("b", 30)):
        for prompt in ("p", "q"):
            result(tmp_path / model / "noise", prompt, "t2v", level)
    result(tmp_path / "b" / "noise", "p", "other", 50)
    assert drifts(tmp_path, baseline="a/noise/t2v") == {
        "a/noise/t2v": (2, 10, None),
        "b/noise/t2v": (2, 30, 20),
        "other": (1, 50, 40),
    }
    assert set(drifts(tmp_path / "b")) == {"t2v", "other"}


def test_seeds_in_folders_of_their_own_are_one_experiment(tmp_path):
    for seed in (1, 2):
        result(tmp_path / f"seed_{seed}", "p", "t2v", 10 * seed, seed=seed)
        result(tmp_path / f"seed_{seed}", "p", "other", 20 * seed, seed=seed)
    assert drifts(tmp_path, baseline="t2v") == {"t2v": (2, 15, None), "other": (2, 30, 15)}


def test_no_video_hides_another_of_its_experiment(tmp_path):
    """Two results with one prompt and seed, and files that differ in nothing but the suffix."""
    for folder, level in (("p", 10), ("p2", 30)):
        result(tmp_path / "results", folder, "t2v", level, prompt="p")
    assert drifts(tmp_path / "results") == {"t2v": (2, 20, None)}
    loose = tmp_path / "loose"
    frames = [np.full((16, 16, 3), value, np.uint8) for value in np.repeat([60, 90], 16)]
    write_pictures(loose / "cat", frames)
    write_film(loose / "cat.mkv", frames)
    with GifWriter(loose / "cat.gif", fps=8, comment="") as sink:
        for frame in frames:
            sink.write(frame)
    assert drifts(loose) == {"loose": (3, 30, None)}


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ('{"8": "b", "0": "a"}', ((0, "a"), (8, "b"))),
        ('{"8": "b"}', ((0, '{"8": "b"}'),)),  # nothing is shown before it: this is no schedule
        ("{}", ((0, "{}"),)),
        ("[" * 100_000, ((0, "[" * 100_000),)),
    ],
)
def test_schedules_begin_at_the_first_frame(text, schedule, tmp_path):
    write_pictures(tmp_path / "cat", pictures(2))
    (tmp_path / "cat.txt").write_text(text)
    (source,), _ = find_sources([tmp_path])
    assert source.schedule == schedule


def test_records_of_other_programs_are_no_riddle(tmp_path):
    for number, others in enumerate(({"image": "cat.png"}, {"seed": [1, 2]}, {"seed": {"a": 1}, "image": 5})):
        result(tmp_path, f"p{number}", "t2v", 0, **others)
    assert drifts(tmp_path) == {"t2v": (3, 0, None)}
