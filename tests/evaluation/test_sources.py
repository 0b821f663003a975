"""Videos to evaluate are found in trees of results and of other programs' files, each once, with prompts and pairs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import moving_pattern, write_h264, write_pictures

from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.measure import measure
from lvdm.evaluation.report import Report, markdown
from lvdm.evaluation.sources import find_sources
from lvdm.io.frames import UnreadableVideoError
from lvdm.io.writers.gif import GifWriter


def measured(path: Path):
    (source,), problems = find_sources([path])
    assert problems == []
    return measure(source, Instruments())


def test_a_variable_frame_rate_repeats_no_frame(tmp_path):
    """From frame 20 on each stays three times as long: a player repeats it, the file does not."""
    slower = ["-vf", "setpts='if(lt(N,20),N,20+(N-20)*3)/8/TB'", "-fps_mode", "vfr"]
    one = measured(write_h264(tmp_path / "a.mp4", moving_pattern(40), *slower))
    assert (one.frames, one.duplicates, one.seams) == (40, [], [])
    assert one.numbers["motion"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 96), (2, 64, 96), (2, 16, 17), (3, 61, 91)])
def test_videos_of_few_frames_and_odd_sizes_are_measured(count, height, width, tmp_path):
    folder = write_pictures(tmp_path / "video", moving_pattern(count, height=height, width=width))
    (folder / ".DS_Store").write_bytes(b"of a file manager")
    (folder / "._0.png").write_bytes(b"of a file manager")
    one = measured(folder)
    assert (one.frames, one.height, one.width) == (count, height, width)
    assert ("motion" in one.numbers) == (count > 1)
    assert one.numbers.get("motion", 1) == pytest.approx(1, abs=0.1)
    assert "brightness_drift" not in one.numbers  # there are no two windows


def test_frames_too_small_to_measure_motion_are_an_error(tmp_path):
    small = write_pictures(tmp_path / "small", moving_pattern(2, height=15))
    with pytest.raises(UnreadableVideoError, match="15x96, at least 16x16"):
        measured(small)


def result(root: Path, name: str, experiment: str, level: int, **others: object) -> None:
    """A result of two windows, the second of which is brighter by `level`; the name is that of the prompt, too."""
    folder = root / name / experiment
    levels = np.repeat([60, 60 + level], 16)
    write_pictures(folder / "fifo", [np.full((16, 16, 3), value, np.uint8) for value in levels])
    record = {"prompt": name, "seed": 0} | others
    (folder / f"{experiment}.json").write_text(json.dumps(record))


def test_a_bar_in_a_name_is_escaped_and_different_sizes_are_noted(tmp_path):
    folders = [tmp_path / name for name in ("a|b", "c")]
    for folder, width in zip(folders, (96, 128), strict=True):
        write_pictures(folder / "cat", moving_pattern(2, width=width))
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


def test_experiments_of_two_models_in_one_tree_are_distinguished(tmp_path):
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


def test_seeds_in_separate_folders_are_one_experiment(tmp_path):
    for seed in (1, 2):
        result(tmp_path / f"seed_{seed}", "p", "t2v", 10 * seed, seed=seed)
        result(tmp_path / f"seed_{seed}", "p", "other", 20 * seed, seed=seed)
    assert drifts(tmp_path, baseline="t2v") == {"t2v": (2, 15, None), "other": (2, 30, 15)}


def test_videos_with_the_same_key_are_all_measured(tmp_path):
    """Two results with one prompt and seed, and files that differ in nothing but the suffix."""
    for folder, level in (("p", 10), ("p2", 30)):
        result(tmp_path / "results", folder, "t2v", level, prompt="p")
    assert drifts(tmp_path / "results") == {"t2v": (2, 20, None)}
    loose = tmp_path / "loose"
    frames = [np.full((16, 16, 3), value, np.uint8) for value in np.repeat([60, 90], 16)]
    write_pictures(loose / "cat", frames)
    write_h264(loose / "cat.mkv", frames)
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
def test_a_caption_is_a_schedule_only_if_it_begins_at_frame_0(text, schedule, tmp_path):
    write_pictures(tmp_path / "cat", moving_pattern(2))
    (tmp_path / "cat.txt").write_text(text)
    (source,), _ = find_sources([tmp_path])
    assert source.schedule == schedule


def test_records_with_unexpected_fields_are_read(tmp_path):
    for number, others in enumerate(({"image": "cat.png"}, {"seed": [1, 2]}, {"seed": {"a": 1}, "image": 5})):
        result(tmp_path, f"p{number}", "t2v", 0, **others)
    assert drifts(tmp_path) == {"t2v": (3, 0, None)}


def test_a_schedule_counts_the_frames_of_the_files(tmp_path):
    """One that follows 9 frames, with 3 more between every two: the switch at new frame 5 is at 4 (9 + 5)."""
    schedule = json.dumps({"0": "a", "5": "b"})
    result(tmp_path, "x", "e", 9, prompt=schedule, frames=4 * 19 + 1, new_frames=11, options={"interpolate": 4})
    result(tmp_path, "y", "e", 9, prompt=schedule, frames=20, new_frames=20, options={"interpolate": None})
    result(tmp_path, "z", "e", 9, prompt=schedule)
    sources, _ = find_sources([tmp_path])
    assert [source.schedule[1][0] for source in sources] == [4 * 14, 5, 5]
