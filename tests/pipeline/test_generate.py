"""The Python interface: the frames of the command line, and nothing changed in the caller's process."""

import subprocess
import sys
from dataclasses import replace
from itertools import islice

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from helpers import BLUE, RED, ROOT, command
from PIL import Image

from lvdm import Options, generate, load_model
from lvdm.pipeline.mode import Mode

SMALL = Options(video_length=4, num_partitions=1, seed=7)


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def with_pictures(visual_model):
    config = visual_model[visual_model.index("--config") + 1]
    return load_model(config, device="cpu", precision="fp32")


def test_frames_are_those_of_the_command_line(model, tmp_path):
    flags = ["--device", "cpu", "--precision", "fp32", "--video_length", 4, "-n", 1, "--seed", 7, "--save_frames"]
    assert command("--prompt", RED, "-l", 3, *flags, "--output_dir", tmp_path) == 0
    saved = [iio.imread(path) for path in sorted(tmp_path.glob("*/t2v/fifo/*.png"))]
    frames = list(generate(model, RED, frames=3, options=SMALL))
    assert len(frames) == len(saved) == 3
    for ours, theirs in zip(frames, saved, strict=True):
        assert ours.dtype == np.uint8
        assert ours.shape == (64, 96, 3)
        np.testing.assert_array_equal(ours, theirs)


def test_without_a_number_of_frames_there_is_no_end(model):
    shorter = list(generate(model, RED, frames=2, options=SMALL))
    for ours, theirs in zip(shorter, islice(generate(model, RED, options=SMALL), 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_schedule_changes_frames_from_that_one_on(model):
    plain, scheduled = (list(generate(model, prompt, frames=6, options=SMALL)) for prompt in (RED, {0: RED, 5: BLUE}))
    assert np.array_equal(plain[0], scheduled[0])
    assert not np.array_equal(plain[5], scheduled[5])


def test_the_callers_process_is_left_as_it_was(model):
    """Between frames, at the end, and when the generator is dropped half-way."""
    before = (torch.get_num_threads(), torch.backends.cudnn.allow_tf32)
    with torch.enable_grad():
        frames = generate(model, RED, options=SMALL)
        for _ in range(2):
            next(frames)
            assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == before
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
        frames.close()
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == before


def test_no_graph_is_recorded_for_weights_that_could_learn(model):
    """Gradient mode is each thread's own: workers must have the caller's, or they keep every activation."""
    recorded = []
    handles = [
        part.register_forward_hook(lambda part, inputs, output: recorded.append(output.requires_grad))
        for part in model.network.unet.modules()
        if isinstance(part, torch.nn.Conv2d)
    ]
    model.network.unet.requires_grad_(True)
    try:
        with torch.enable_grad():
            next(generate(model, RED, options=SMALL))
    finally:
        model.network.unet.requires_grad_(False)
        for handle in handles:
            handle.remove()
    assert recorded
    assert not any(recorded)


def test_two_videos_of_one_model_do_not_disturb_each_other(model):
    """Frame by frame in turn, one of them with a Q-cache: each is as if it were alone."""
    cached = replace(SMALL, mode=Mode.parse("t2v_TTqcache_attn1"))
    alone = [list(generate(model, RED, frames=3, options=options)) for options in (SMALL, cached)]
    assert not np.array_equal(alone[0][-1], alone[1][-1])
    together = zip(*(generate(model, RED, frames=3, options=options) for options in (SMALL, cached)), strict=True)
    for number, frames in enumerate(together):
        for frame, expected in zip(frames, alone, strict=True):
            np.testing.assert_array_equal(frame, expected[number])


def test_a_picture_is_felt(with_pictures, tmp_path):
    frames = {}
    for color in ("red", "blue"):
        Image.new("RGB", (48, 32), color).save(tmp_path / f"{color}.png")
        (frames[color],) = generate(with_pictures, RED, frames=1, image=tmp_path / f"{color}.png", options=SMALL)
    assert not np.array_equal(frames["red"], frames["blue"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": RED, "options": Options(num_partitions=0)}, "--num_partitions 0"),
        ({"prompt": RED, "options": Options(height=70)}, "--height 70"),
        ({"prompt": RED, "options": Options(mode=Mode("i2v"))}, "--mode 'i2v'"),
        ({"prompt": {3: RED}}, "begins with frame 0"),
        ({"prompt": RED, "image": "nowhere.png"}, "--mode 'i2v'"),
        ({"prompt": RED, "frames": 0}, "frames is 0"),
        ({"prompt": RED, "frames": 2.5}, "frames is 2.5"),
        ({"prompt": 5}, "prompt is 5"),
        ({"prompt": RED, "options": Options(seed="7")}, "--seed '7': expected int"),
        ({"prompt": RED, "options": Options(eta=True)}, "--eta True: expected float"),
        ({"prompt": RED, "options": Options(new_video_length=2)}, "--new_video_length 2: means nothing to generate"),
        ({"prompt": RED, "options": Options(save_frames=True)}, "--save_frames True: means nothing to generate"),
    ],
)
def test_bad_arguments_are_sentences(model, arguments, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (what it says is looked at below)
        next(generate(model, **arguments))
    assert words in str(caught.value)


def test_importing_lvdm_takes_no_torch():
    code = "import sys, lvdm; assert 'torch' not in sys.modules; print(sorted(lvdm.__all__))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['Model', 'Options', 'generate', 'load_model']"


def test_the_model_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        load_model(device="cpu", precision="fp32").options.ckpt_path == ROOT / "videocrafter_models/tiny_t2v/model.ckpt"
    )


def test_a_mode_may_be_given_as_text(model):
    options = Options(mode="t2v_TTqcache_weighted50")
    assert options.mode == Mode("t2v", ("TT", "attn1"), 0.5)
    with pytest.raises(ValueError, match="--mode 't2v_fast': unknown word 'fast'"):
        Options(mode="t2v_fast")


def test_options_of_the_loaded_model_may_be_changed(model):
    (changed,) = generate(
        model, RED, frames=1, options=replace(model.options, seed=7, video_length=4, num_partitions=1)
    )
    (given,) = generate(model, RED, frames=1, options=SMALL)
    np.testing.assert_array_equal(changed, given)


def test_compile_is_followed(model, monkeypatch):
    """The U-Net of the queue is the one that torch.compile returns."""
    compiled = []

    def counting(unet, **settings):
        compiled.append(unet)
        return unet

    monkeypatch.setattr(torch, "compile", counting)
    next(generate(model, RED, options=replace(SMALL, compile=True)))
    assert compiled == [model.network.unet]
