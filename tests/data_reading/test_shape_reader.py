"""The shape reader is right on rendered clips, also degraded ones, and reads nothing where frames are unclear."""

import json
import sys
from collections import Counter
from dataclasses import astuple, replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from helpers import load_script

from lvdm.data.captions import BACKGROUNDS, HELD_OUT_SCENES, SCENES, SHAPES, Scene
from lvdm.data.shape_reader import Reading, read_clip, score
from lvdm.data.shapes import DIRECTIONS, render, to_frames, trajectory
from lvdm.evaluation.shape_certificate import DEGRADATIONS
from lvdm.io.prompt_file import read_prompts

evaluate_shapes = load_script("evaluate_shapes")

SAMPLE = SCENES[::11]  # 55 scenes, every word at least 8 times
STAR = Scene("blue", "star", "moving right", "pink")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(1)


def make_pose(motion, frames=16, x=None, y=None):
    random = torch.rand(3).tolist()
    x, y = 96 * random[0] if x is None else x, 64 * random[1] if y is None else y
    return trajectory(motion, torch.arange(float(frames)), x=x, y=y, phase=random[2])


def make_clip(scene, frames=16, **start):
    return render(scene, make_pose(scene.motion, frames, **start))[0]


def words(scene):
    return Reading(scene.background, scene.color, scene.shape, scene.motion)


@pytest.mark.parametrize(("degradation", "least"), [("none", 0.99), ("each", 0.96), ("all", 0.96)])
def test_reads_rendered_clips(degradation, least):
    changes = list(DEGRADATIONS.values())
    right = []
    for index, scene in enumerate(SAMPLE):
        video = make_clip(scene)
        chosen = {"none": [], "each": [changes[index % len(changes)]], "all": changes}[degradation]
        for change in chosen:
            video = change(video)
        right.append(read_clip(to_frames(video)) == words(scene))
    assert np.mean(right) >= least


def test_reads_through_twice_the_noise():
    right = []
    for scene in SAMPLE[::2]:
        video = make_clip(scene)
        right.append(read_clip(to_frames(video + torch.randn_like(video) * 16 / 255)) == words(scene))
    assert np.mean(right) >= 0.9


@pytest.mark.parametrize("frames", [8, 24])
def test_reads_other_lengths(frames):
    for scene in SAMPLE[::5]:
        assert read_clip(to_frames(make_clip(scene, frames))) == words(scene)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (96, 144), (128, 192)])
def test_reads_other_sizes(height, width):
    for scene in SAMPLE[::8]:
        video, _ = render(scene, make_pose(scene.motion), height=height, width=width)
        assert read_clip(to_frames(video)) == words(scene)


@pytest.mark.parametrize("shape", SHAPES)
def test_reads_an_object_in_all_four_corners_at_once(shape):
    scene = replace(STAR, shape=shape)
    assert read_clip(to_frames(make_clip(scene, x=-8.0, y=2.0))) == words(scene)


def test_reads_the_direction_of_time():
    opposite = {"moving right": "moving left", "moving up": "moving down"}
    opposite |= {after: before for before, after in opposite.items()}
    for motion in DIRECTIONS:
        scene = replace(STAR, motion=motion)
        assert read_clip(to_frames(make_clip(scene).flip(0))).motion == opposite[motion]


def test_reads_jerky_and_slower_motion():
    for motion in DIRECTIONS:
        scene = replace(STAR, motion=motion)
        assert read_clip(to_frames(make_clip(scene)[torch.arange(16) // 3 * 3])) == words(scene)
        assert read_clip(to_frames(make_clip(scene, 8).repeat_interleave(2, 0))) == words(scene)


def test_spinning_counts_either_way():
    scene = replace(STAR, motion="spinning")
    assert read_clip(to_frames(make_clip(scene).flip(0))).motion == "spinning"


def test_still_video_has_no_motion():
    for scene in SAMPLE[::4]:
        still = make_clip(scene)[:1].repeat(16, 1, 1, 1)
        noisy = DEGRADATIONS["noise"](still)
        for video in (still, noisy):
            assert read_clip(to_frames(video)) == replace(words(scene), motion=None)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_blank_video_has_no_object(background):
    blank = torch.tensor(BACKGROUNDS[background])[None, :, None, None].expand(16, 3, 64, 96) / 255
    for video in (blank, DEGRADATIONS["noise"](blank)):
        assert read_clip(to_frames(video)) == Reading(background, None, None, None)


def test_noise_has_no_background_and_no_object():
    coarse = torch.nn.functional.interpolate(torch.rand(16, 3, 8, 12), (64, 96), mode="bilinear")
    moving = torch.stack([torch.roll(coarse[0], 3 * frame, 2) for frame in range(16)])
    for video in (torch.rand(16, 3, 64, 96), torch.rand(1, 3, 64, 96).repeat(16, 1, 1, 1), coarse, moving):
        assert read_clip(to_frames(video)) == Reading(None, None, None, None)


@pytest.mark.parametrize("present", [slice(0, 8), slice(8, 16), slice(0, 15)])
def test_an_object_missing_in_some_frames_is_not_read(present):
    for scene in SAMPLE[::12]:
        video = torch.ones(16, 3, 64, 96) * torch.tensor(BACKGROUNDS[scene.background])[:, None, None] / 255
        video[present] = make_clip(scene)[present]
        reading = read_clip(to_frames(video))
        assert reading == Reading(scene.background, None, None, None)


def test_an_attribute_that_changes_halfway_is_not_read():
    first, then = make_clip(STAR, x=20, y=30), make_clip(STAR, x=20, y=30)[:1].repeat(16, 1, 1, 1)
    assert read_clip(to_frames(torch.cat([first[:8], first[7:8].repeat(8, 1, 1, 1)]))).motion is None
    jump = torch.cat([then[:8], then[8:].roll(25, 3)])
    assert read_clip(to_frames(jump)).motion is None
    for attribute, word in (("color", "green"), ("background", "gray")):
        other = make_clip(replace(STAR, **{attribute: word}), x=20, y=30)
        reading = read_clip(to_frames(torch.cat([first[:8], other[8:]])))
        assert reading == replace(words(STAR), **{attribute: None})


def test_two_motions_at_once_are_not_read():
    right, turning = make_pose("moving right"), make_pose("spinning")
    for pose in (replace(right, y=right.y + 3 * torch.arange(16)), replace(right, angle=turning.angle)):
        assert read_clip(to_frames(render(STAR, pose)[0])).motion is None


def test_growing_is_not_pulsing():
    pose = replace(make_pose("pulsing"), size=torch.linspace(0.7, 1.3, 16))
    assert read_clip(to_frames(render(STAR, pose)[0])) == replace(words(STAR), motion=None)


def test_two_objects_have_no_shape():
    scene = replace(STAR, shape="circle")
    one, other = make_clip(scene, x=20, y=30), render(scene, make_pose(scene.motion, x=65, y=30))
    both = one * (1 - other[1]) + other[0] * other[1]
    assert read_clip(to_frames(both)).shape is None


def test_a_bar_is_none_of_the_shapes():
    video = render(replace(STAR, shape="square"), make_pose("moving right", x=30, y=30))[0]
    bar = torch.nn.functional.interpolate(video, (16, 96), mode="area").repeat(1, 1, 4, 1)
    bar[:, :, 16:] = torch.tensor(BACKGROUNDS[STAR.background])[:, None, None] / 255
    assert read_clip(to_frames(bar)) == replace(words(STAR), shape=None)


def test_score_compares_each_attribute():
    scene = Scene("red", "star", "spinning", "cyan")
    assert set(score(words(scene), scene).values()) == {True}
    for attribute, word in (("color", "blue"), ("shape", None), ("motion", "pulsing"), ("background", "pink")):
        right = score(replace(words(scene), **{attribute: word}), scene)
        assert [name for name, is_right in right.items() if not is_right] == [attribute]


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((7, 64, 96, 3), np.uint8),
        np.zeros((16, 64, 96, 3), np.float32),
        np.zeros((16, 3, 64, 96), np.uint8),
        np.zeros((64, 96, 3), np.uint8),
    ],
)
def test_an_array_that_is_not_a_clip_is_an_error(frames):
    with pytest.raises(ValueError, match=r"expected uint8 \(T, H, W, 3\) with T >= 8"):
        read_clip(frames)


# The command


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["evaluate_shapes.py", *map(str, arguments)])
    status = evaluate_shapes.main()
    return status, *capsys.readouterr()


def table(output):
    """The cells of the printed table: line -> column -> text."""
    head, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if line[:1] == "|"
    )
    return {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in lines}


def write_result(root, prompt, kind, frames, experiment="base"):
    folder = root / prompt.replace(" ", "_") / experiment
    (folder / "fifo").mkdir(parents=True, exist_ok=True)
    (folder / f"{experiment}.json").write_text(json.dumps({"prompt": prompt, "mode": "t2v"}))
    if kind == "png":
        for index, frame in enumerate(frames):
            iio.imwrite(folder / "fifo" / f"{index:05d}.png", frame)
    else:
        settings = {"fps": 8} if kind == "mp4" else {"duration": 100}
        iio.imwrite(folder / f"{experiment}.{kind}", frames, **settings)
    return folder


TRAINED, HELD_OUT = Scene("red", "circle", "moving left", "black"), HELD_OUT_SCENES[40]


def test_command_reads_every_kind_of_file_and_every_window(tmp_path, monkeypatch, capsys):
    for kind, scene in zip(("png", "mp4", "gif"), SAMPLE[:60:20], strict=True):
        video = make_clip(scene, 40)
        video[24:] = video[24:25]  # the second window stands still
        video[24:] += 0.01 * torch.randn(16, 3, 64, 96)  # files of equal frames may be merged
        write_result(tmp_path, scene.caption, kind, to_frames(video))
    status, output, _ = run(monkeypatch, capsys, tmp_path, "--windows", "0-15", "24-39")
    assert status == 0
    first, second = table(output).values()
    assert list(table(output)) == [f"{tmp_path}: base, 0-15", f"{tmp_path}: base, 24-39"]
    assert first["n"] == second["n"] == "3"
    for attribute in ("background", "color", "shape", "color and shape"):
        assert first[attribute] == second[attribute] == "100.0"
    assert first["motion"] == first["all four"] == "100.0"
    assert second["motion"] == second["all four"] == "0.0"


def test_command_prefers_png_then_mp4(tmp_path, monkeypatch, capsys):
    right, wrong = to_frames(make_clip(TRAINED)), to_frames(make_clip(HELD_OUT))
    write_result(tmp_path, TRAINED.caption, "gif", wrong)
    for kind in ("mp4", "png"):
        write_result(tmp_path, TRAINED.caption, kind, right if kind == "mp4" else wrong)
        _, output, _ = run(monkeypatch, capsys, tmp_path, "--windows", "0-15")
        (line,) = table(output).values()
        assert line["all four"] == ("100.0" if kind == "mp4" else "0.0")


def test_command_counts_what_it_leaves_out_and_writes_readings(tmp_path, monkeypatch, capsys):
    for scene, length in ((TRAINED, 16), (HELD_OUT, 100)):
        write_result(tmp_path, scene.caption, "gif", to_frames(make_clip(scene, length)))
    write_result(tmp_path, "a red cat", "png", to_frames(make_clip(TRAINED)))
    unreadable = write_result(tmp_path, SAMPLE[50].caption, "gif", to_frames(make_clip(TRAINED)))
    (unreadable / "base.gif").write_bytes(b"GIF89a")
    write_result(tmp_path, HELD_OUT.caption, "gif", to_frames(make_clip(TRAINED, 100)), experiment="other")
    (tmp_path / "notes.json").write_text("not a result")

    readings = tmp_path / "readings.json"
    status, output, _ = run(monkeypatch, capsys, tmp_path, "--json", readings)
    assert status == 0
    counts = {name.removeprefix(f"{tmp_path}: "): line["n"] for name, line in table(output).items()}
    assert counts == {"base, 0-15": "2", "base, 84-99": "1", "other, 0-15": "1", "other, 84-99": "1"}
    assert "skipped: 2" in output
    assert "'a red cat' is not a caption" in output
    assert "too short: 1" in output
    assert "16 frames do not reach 84-99" in output
    read = {(Path(video["path"]).name, video["prompt"]): video["windows"] for video in json.loads(readings.read_text())}
    assert len(read) == 3
    assert read["base", HELD_OUT.caption]["84-99"]["reading"]["shape"] == HELD_OUT.shape
    assert set(read["base", TRAINED.caption]) == {"0-15"}
    assert read["other", HELD_OUT.caption]["0-15"]["right"] == score(words(TRAINED), HELD_OUT)

    _, output, _ = run(monkeypatch, capsys, tmp_path, "--held_out")
    assert {line["n"] for line in table(output).values()} == {"1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RESULTS"], "no videos"),
        (["RESULTS", "--windows", "5-11"], "--windows '5-11'"),
        (["RESULTS", "--windows", "20-5"], "--windows '20-5'"),
        (["RESULTS", "--windows", "x"], "--windows 'x'"),
        (["--ground_truth", "0"], "--ground_truth 0"),
        (["RESULTS", "--ground_truth"], "expected one of these"),
        ([], "expected one of these"),
        (["--write_prompts", "RESULTS/p.txt", "--count", "121"], "--count 121"),
    ],
)
def test_command_reports_invalid_input_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    arguments = [argument.replace("RESULTS", str(tmp_path)) for argument in arguments]
    status, output, errors = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert output == ""
    assert message in errors
    assert errors.count("\n") == 1


def test_command_names_a_broken_json(tmp_path, monkeypatch, capsys):
    folder = write_result(tmp_path, TRAINED.caption, "png", to_frames(make_clip(TRAINED)))
    (folder / "base.json").write_text('{"prompt": ')
    status, _, errors = run(monkeypatch, capsys, tmp_path)
    assert status == 2
    assert str(folder / "base.json") in errors


def test_command_tests_the_reader_on_rendered_clips(monkeypatch, capsys):
    status, output, _ = run(monkeypatch, capsys, "--ground_truth", "6")
    assert status == 0
    assert list(table(output)) == ["clean", *DEGRADATIONS, "all"]
    assert table(output)["clean"]["all four"] == "100.0"


def test_command_writes_balanced_held_out_prompts(tmp_path, monkeypatch, capsys):
    first, again = tmp_path / "first.txt", tmp_path / "a new folder" / "again.txt"
    for path in (first, again):
        assert run(monkeypatch, capsys, "--write_prompts", path)[0] == 0
    assert first.read_bytes() == again.read_bytes()
    scenes = [Scene.parse(line) for line in first.read_text().splitlines()]
    assert len(set(scenes)) == 60
    assert all(scene.held_out for scene in scenes)
    for chosen in zip(*map(astuple, scenes), strict=True):
        counts = Counter(chosen).values()
        assert max(counts) - min(counts) <= 2
    run(monkeypatch, capsys, "--write_prompts", again, "--count", 7)
    assert again.read_text().splitlines() == first.read_text().splitlines()[:7]


def test_command_writes_pictures_beside_a_table_of_prompts(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, capsys, "--write_prompts", tmp_path / "pairs.csv", "--count", 5)[0] == 0
    prompts = read_prompts(tmp_path / "pairs.csv", with_pictures=True)
    assert len(prompts) == 5
    for prompt in prompts:
        scene = Scene.parse(prompt.text)
        shown = read_clip(np.repeat(iio.imread(prompt.picture.path)[None], 8, axis=0))
        assert (shown.color, shown.shape, shown.background) == (scene.color, scene.shape, scene.background)
