"""The real command with every plan of noise levels, going on from a video, and making frames in between."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import yaml
from helpers import BLUE, RED, command, one, png_frames, prompt_file, stopped_after

from lvdm import Options, generate, load_model
from lvdm.cli.arguments import parse_args
from lvdm.diffusion.schedule import CONSISTENCY
from lvdm.io.images import as_tensor, to_uint8
from lvdm.pipeline.run import Run

PLANS = ("fifo", "plateau:2", "pyramid:0.5", "autoregressive:2", "full")


@pytest.fixture(scope="module")
def small(tiny_model) -> list[str | Path]:
    """Flags of the smallest model with little to compute in a step; a window has 4 frames, the queue 8 slots."""
    return [*tiny_model, "--unconditional_guidance_scale", 1, "--save_every", 1, "-p"]


def frames_of(folder: Path, experiment: str) -> np.ndarray:
    return png_frames(folder, f"*/{experiment}/fifo/*.png")


@pytest.mark.parametrize(
    ("plan", "more"), [*((plan, ()) for plan in PLANS), ("fifo", ("--interpolate", 3)), ("plateau:2", ("--eta", 0.5))]
)
def test_a_video_that_was_stopped_anywhere_is_the_same(tmp_path, small, plan, more, monkeypatch):
    """In the middle of a period, before the first frame, and between frames that leave together."""
    prompts = prompt_file(tmp_path, json.dumps({"0": RED, "4": BLUE}))
    flags = [*small, prompts, "--plan", plan, *more, "--output_dir"]
    assert command(*flags, tmp_path / "straight", "-l", 9) == 0
    straight = frames_of(tmp_path / "straight", "t2v")
    statuses = []
    while 0 not in statuses:
        with stopped_after(monkeypatch, 4):
            statuses.append(command(*flags, tmp_path / "stopped", "-l", 9))
    assert len(statuses) > 1
    assert set(statuses[:-1]) == {143}
    assert np.array_equal(frames_of(tmp_path / "stopped", "t2v"), straight)
    if not more:
        for length in (1, 3, 6, 9):  # a video may become longer, also where more frames had left than were asked for
            assert command(*flags, tmp_path / "longer", "-l", length) == 0
            assert len(frames_of(tmp_path / "longer", "t2v")) == length
        assert np.array_equal(frames_of(tmp_path / "longer", "t2v"), straight)


def test_plans_make_different_videos_of_one_base_clip(tmp_path, small):
    """And with a Q-cache, saved queues and other timesteps, too."""
    prompts = prompt_file(tmp_path, RED)
    made = {}
    for plan in PLANS:
        assert command(*small, prompts, "-l", 6, "--plan", plan, "-ex", "a", "--output_dir", tmp_path / plan) == 0
        made[plan] = frames_of(tmp_path / plan, "a")
        assert made[plan].shape == (6, 32, 48, 3)
    assert len({frames.tobytes() for frames in made.values()}) == len(PLANS)
    assert np.array_equal(made["autoregressive:2"][:4], made["full"][:4])  # the base clip
    record = json.loads(one(tmp_path / "plateau:2", "*/a/a.json").read_text())
    assert record["options"]["plan"] == record["settings"]["--plan"] == "plateau:2"
    flags = ["-ex", "none", "--save_queue", "--plan", "full", "--output_dir", tmp_path / "none"]
    assert command(*small, prompts, "-l", 4, *flags) == 0  # the base clip is the video: no pass over a queue
    assert frames_of(tmp_path / "none", "none").shape[0] == 4
    few = ["--timesteps", "999,749,499,249", "--eta", "consistency", "--plan", "plateau:2", "--save_queue"]
    flags = ["-m", "t2v_TTqcache_weighted50", "--context_level", 20, "-ex", "b", "--output_dir", tmp_path / "few"]
    assert command(*small, prompts, "-l", 4, *few, *flags) == 0
    assert len(list(one(tmp_path / "few", "*/b/queue").glob("*.png"))) % 10 == 0  # 2 + 4 levels of 2 slots
    assert frames_of(tmp_path / "few", "b").std() > 1


def test_a_plan_is_shown_and_no_video_made(tmp_path, small, capfd):
    assert (
        command(*small, prompt_file(tmp_path, RED), "--plan", "pyramid:0.5", "--show_plan", "--output_dir", tmp_path)
        == 0
    )
    printed = capfd.readouterr().out
    assert "before step 1: . . 1 3 5 7\n  before step 2: . . 0 2 4 6\n  at the end:    . . . 1 3 5" in printed
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["plans"]
    picture = iio.imread(tmp_path / "plans/pyramid_0.5.png")
    assert picture[0, 0].tolist() == [255, 255, 255]  # clean
    assert picture[0, 6 * 6 - 1].tolist() == [0, 0, 0]  # noise


@pytest.fixture
def source(tmp_path) -> Path:
    """A video of 7 frames that no model made: a square that wanders over a ramp."""
    frames = np.tile(np.linspace(0, 255, 48).astype(np.uint8)[None, None, :, None], (7, 32, 1, 3))
    for number, frame in enumerate(frames):
        frame[8:16, 3 * number : 3 * number + 8] = (255, 0, 0)
    return write_film(tmp_path / "source.mp4", frames)


def write_film(path: Path, frames: np.ndarray) -> Path:
    """Write an MP4 without loss."""
    iio.imwrite(path, frames, plugin="FFMPEG", fps=8, codec="libx264rgb", output_params=["-crf", "0"])
    return path


@pytest.mark.parametrize("plan", ["fifo", "plateau:2", "pyramid:0.5", "autoregressive:2"])
def test_going_on_from_a_video(tmp_path, small, source, plan):
    """The user's frames come first, to the bit as the autoencoder returns them; the rest is the same without them."""
    flags = [*small, prompt_file(tmp_path, RED), "--plan", plan, "--continue_from", source, "--output_dir"]
    assert command(*flags, tmp_path / "with", "-l", 5, "--use_mp4") == 0
    assert command(*flags, tmp_path / "without", "-l", 5, "--no-keep_source") == 0
    kept, new = frames_of(tmp_path / "with", "t2v"), frames_of(tmp_path / "without", "t2v")
    assert (len(kept), len(new)) == (7 + 5, 5)
    assert np.array_equal(kept[7:], new)
    model = load_model(small[1]).network
    for ours, theirs in zip(kept, iio.imiter(source, plugin="FFMPEG"), strict=False):
        trip = to_uint8(model.decode(model.encode(as_tensor(theirs)[None]))[0])
        assert np.array_equal(ours, trip)
    assert len(iio.imread(one(tmp_path / "with", "*/t2v/t2v.mp4"), plugin="FFMPEG")) == 12
    assert command(*flags, tmp_path / "with", "-l", 7, "--use_mp4") == 0  # it can become longer
    assert np.array_equal(frames_of(tmp_path / "with", "t2v")[:12], kept)
    source.write_bytes(source.read_bytes() + b" ")  # another file under the same name
    assert command(*flags, tmp_path / "with", "-l", 7, "--use_mp4") == 2


def test_what_comes_depends_on_what_was(tmp_path, small, source):
    """Another last frame changes the frames that follow; from Python they are the same as from the command line."""
    made = []
    for number in range(2):
        flags = [*small, prompt_file(tmp_path, RED), "--continue_from", source, "--no-keep_source", "-l", 4]
        assert command(*flags, "--output_dir", tmp_path / str(number)) == 0
        made.append(frames_of(tmp_path / str(number), "t2v"))
        if number == 0:
            model = load_model(small[1], precision="fp32")
            options = Options(
                continue_from=source,
                keep_source=False,
                video_length=4,
                num_partitions=2,
                unconditional_guidance_scale=1.0,
            )
            assert np.array_equal(np.stack([*generate(model, RED, frames=4, options=options)]), made[0])
            frames = iio.imread(source, plugin="FFMPEG")
            frames[-1] = 255 - frames[-1]
            write_film(source, frames)
    assert not np.array_equal(*made)


def test_frames_in_between(tmp_path, small, source):
    """Given frames stay what they are to the bit, with any number between them; the frame rate is multiplied."""
    flags = [*small, prompt_file(tmp_path, RED), "--continue_from", source, "-l", 0, "--use_mp4"]
    model = load_model(small[1]).network
    trips = [
        to_uint8(model.decode(model.encode(as_tensor(frame)[None]))[0]) for frame in iio.imiter(source, plugin="FFMPEG")
    ]
    for every in (2, 3):
        assert command(*flags, "--interpolate", every, "--output_dir", tmp_path / str(every)) == 0
        frames = frames_of(tmp_path / str(every), "t2v")
        assert len(frames) == 6 * every + 1
        assert np.array_equal(frames[::every], np.stack(trips))
        assert not any(np.array_equal(frames[k], frames[k + 1]) for k in range(len(frames) - 1))
        film = one(tmp_path / str(every), "*/t2v/t2v.mp4")
        assert iio.immeta(film, plugin="FFMPEG")["fps"] == 8 * every
    assert command(*small, prompt_file(tmp_path, RED), "-l", 4, "--output_dir", tmp_path / "plain") == 0
    assert (
        command(*small, prompt_file(tmp_path, RED), "-l", 4, "--interpolate", 2, "--output_dir", tmp_path / "new") == 0
    )
    assert np.array_equal(frames_of(tmp_path / "new", "t2v")[::2], frames_of(tmp_path / "plain", "t2v"))


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (
            ["--plan", "spiral"],
            "--plan 'spiral': allowed are fifo, plateau:WIDTH, pyramid:SLOPE",
        ),
        (["--plan", "plateau:3"], "--plan plateau:3: the width must divide the window of 4 frames"),
        (["--plan", "autoregressive:4"], "--plan autoregressive:4: the context must be from 0 to 3 frames"),
        (["--plan", "pyramid:0.3"], "--plan pyramid:0.3: frames a level must be"),
        (["--plan", "fifo:2"], "--plan 'fifo:2': fifo has no number"),
        (["--plan", "full", "-m", "t2v_unilatent"], "unilatent spreads a base clip over the queue"),
        (["--timesteps", "249,999"], "--timesteps 249,999: must be one or more falling numbers from 999 to 0"),
        (["--timesteps", "1000,1"], "--timesteps 1000,1: must be"),
        (["--timesteps", "5,-1"], "--timesteps 5,-1: must be"),
        (["--timesteps", "many"], "'many' is not a whole number, or several"),
        (["--timesteps", "999,500,1"], "--plan fifo: a queue of 3 slots"),
        (["--eta", "consistent"], "'consistent' is not a number from 0 to 1 or consistency"),
        (["--eta", "2"], "--eta 2.0: must be from 0 to 1"),
        (["--context_level", "1000"], "--context_level 1000: must be from 0 to 999"),
        (["--interpolate", "1"], "--interpolate 1: must be at least 2"),
        (["--interpolate", "4"], "--interpolate 4: must be from 2 to 3"),
        (["-l", "0"], "--new_video_length 0: must be at least 1"),
        (["--continue_from", "SOURCE:3", "-m", "t2v_unilatent"], "unilatent spreads a base clip over the queue"),
        (["--timesteps", "999,1", "-m", "t2v_unilatent"], "unilatent spreads a base clip over the queue"),
        (["--timesteps", "999,1", "--base_spacing", "videocrafter"], "has no effect with --timesteps"),
        (["--no-keep_source"], "--no-keep_source: has no effect without --continue_from"),
        (
            ["--context_level", "20", "--plan", "full"],
            "--context_level 20 --plan full: with it (and without lookahead)",
        ),
        (
            ["--continue_from", "SOURCE:3", "-l", "0", "--interpolate", "2", "--no-keep_source"],
            "0 is for --continue_from",
        ),
        (["--continue_from", "BROKEN:6"], "cannot be read as a video"),
        (["--continue_from", "nowhere.mp4"], "--continue_from 'nowhere.mp4': there is no such file"),
        (["--continue_from", "README.md"], "--continue_from 'README.md': cannot be read as a video"),
        (
            ["--continue_from", "SOURCE:1"],
            "has 1 frames at 8 frames a second (--output_fps); --plan fifo needs at least 2",
        ),
        (["--continue_from", "SOURCE:2", "--plan", "autoregressive:3"], "needs at least 3 to go on from"),
        (["--continue_from", "SOURCE:5", "--plan", "full"], "this plan looks at no earlier frame"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, small, flags, error, capfd):
    for index, flag in enumerate(flags):
        kind, _, pictures = flag.partition(":")
        if kind in ("SOURCE", "BROKEN"):
            folder = tmp_path / "source"
            folder.mkdir()
            for number in range(int(pictures)):
                iio.imwrite(folder / f"{number}.png", np.full((32, 48, 3), 9 * number, np.uint8))
            if kind == "BROKEN":
                (folder / f"{number}.png").write_bytes(b"no picture")
            flags = [*flags[:index], str(folder), *flags[index + 1 :]]
    assert command(*small, prompt_file(tmp_path, RED), *flags, "--output_dir", tmp_path / "out") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert error in line


def test_a_source_is_resampled_and_fitted(tmp_path, small, source):
    """At twice the frame rate of the output every second frame is read, and another shape is cropped or padded."""
    frames = iio.imread(source, plugin="FFMPEG")[:, :, 8:40]  # 32 x 32
    iio.imwrite(source, frames.repeat(2, axis=0), plugin="FFMPEG", fps=16, codec="libx264rgb")
    flags = [*small, prompt_file(tmp_path, RED), "-l", 1, "--plan", "autoregressive:2", "--continue_from", source]
    made = {}
    for fit in ("crop", "pad"):
        assert command(*flags, "--image_fit", fit, "-ex", fit, "--output_dir", tmp_path) == 0
        made[fit] = frames_of(tmp_path, fit)
        assert made[fit].shape == (7 + 1, 32, 48, 3)
    assert not np.array_equal(made["crop"][0], made["pad"][0])


def test_flags_reach_the_sampler(small):
    """Timesteps, eta and the level of context, for the queue and for clips."""
    words = [*map(str, small[:-1]), "--timesteps", "999,500,20,4", "--plan", "plateau:2", "--eta", "consistency"]
    run = Run(load_model(small[1]).network, parse_args([*words, "--context_level", "30", "--prompt", RED]))
    for schedule in (run.queue_schedule(), run.clip_schedule()):
        assert schedule.timesteps.tolist() == [4, 20, 500, 999]
        assert schedule.context[0] == 30
        assert schedule.eta == CONSISTENCY
    assert run.options.queue_plan.levels == run.options.steps == 4


def test_a_changed_flag_leaves_the_state_of_a_video(tmp_path, small, monkeypatch, capfd):
    """An error of one line, whatever the flag does to the queue's shape; with the old flags the video goes on."""
    flags = [*small, prompt_file(tmp_path, RED), "-ex", "a", "--output_dir", tmp_path, "--plan", "autoregressive:2"]
    with stopped_after(monkeypatch, 3):
        assert command(*flags, "-l", 8) == 143
    for changed in (["--video_length", 16], ["--video_length", 2, "--plan", "fifo"], ["--plan", "pyramid:0.5"]):
        capfd.readouterr()
        assert command(*flags, "-l", 8, *changed) == 2
        assert "when the video in" in capfd.readouterr().err
    assert not list(tmp_path.glob("*/a/*.damaged*"))
    assert command(*flags, "-l", 8) == 0
    assert len(frames_of(tmp_path, "a")) == 8


def test_a_model_that_was_not_trained_for_it_is_warned_of(tmp_path, small, capfd):
    flags = [*small, prompt_file(tmp_path, RED), "-l", 5, "--output_dir", tmp_path]
    assert command(*flags, "--plan", "autoregressive:2", "--interpolate", 2) == 0
    warned = capfd.readouterr().err
    assert "warning: --plan autoregressive:2 shows the model clean frames beside noisy ones" in warned
    assert "warning: --interpolate 2" in warned
    config = yaml.safe_load(Path(small[1]).read_text()) | {"trained_levels": ["constant", "independent"]}
    (tmp_path / "trained.yaml").write_text(yaml.safe_dump(config))
    flags = [*small[:1], tmp_path / "trained.yaml", *flags[2:], "-ex", "trained"]
    assert command(*flags, "--plan", "autoregressive:2", "--interpolate", 2) == 0
    assert "shows the model" not in capfd.readouterr().err
