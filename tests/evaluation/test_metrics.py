"""Metrics have the expected values on videos for which they can be computed by hand or by scikit-image."""

import math
import tracemalloc
from itertools import pairwise

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from lvdm.data.captions import Scene
from lvdm.data.shape_reader import count_objects
from lvdm.data.shapes import render, trajectory
from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.measure import measure
from lvdm.evaluation.metrics import METRICS, Curve, View, luma_of, start_end_contrast
from lvdm.evaluation.sources import find_sources
from lvdm.evaluation.ssim import ssim

CIRCLE = Scene("red", "circle", "moving right", "black")


def random_picture(height=64, width=96, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def moving(count, *, step=(2, 3), seed=0):
    return [np.roll(random_picture(seed=seed), (step[0] * at, step[1] * at), (0, 1)) for at in range(count)]


def folder_of(frames, folder, prompt=None):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        iio.imwrite(folder / f"{number}.png", frame)
    if prompt:
        folder.with_name(f"{folder.name}.txt").write_text(prompt)
    return folder


def measured(frames, folder, *, prompt=None, instruments=None):
    (source,), _ = find_sources([folder_of(frames, folder / "video", prompt)])
    return measure(source, instruments or Instruments())


def shapes_video(*poses, count):
    """Frames of circles, the later ones in front, each moving from its (x, y)."""
    video = None
    for x, y in poses:
        layer, cover = render(CIRCLE, trajectory(CIRCLE.motion, torch.arange(float(count)), x=x, y=y, phase=0))
        video = layer if video is None else video * (1 - cover) + layer * cover
    return (video * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_a_still_video_has_no_motion_and_only_duplicates(tmp_path):
    one = measured([random_picture()] * 40, tmp_path)
    assert (one.frames, one.height, one.width) == (40, 64, 96)
    assert one.numbers["temporal_flickering"] == 1
    assert one.numbers["motion"] == 0
    for name in ("brightness_drift", "contrast_drift", "saturation_drift", "seams"):
        assert one.numbers[name] == 0
    assert one.duplicates == list(range(1, 40))


@pytest.mark.parametrize("step", [(0, 1), (2, 3), (-5, 0), (-8, 7)])
def test_motion_is_the_length_of_a_translation(step, tmp_path):
    one = measured(moving(20, step=step), tmp_path)
    assert one.numbers["motion"] == pytest.approx(math.hypot(*step), abs=0.05)
    assert one.seams == one.duplicates == []


def test_motion_is_in_pixels_of_the_original_size():
    y, x = np.mgrid[0:320, 0:512]
    waves = [100 + 50 * np.sin((x - 4 * at) / 9 + np.sin(y / 15)) + 50 * np.cos(y / 11 - x / 31) for at in range(2)]
    before, now = (View(wave.astype(np.uint8)[..., None].repeat(3, axis=2)) for wave in waves)
    (metric,) = (metric for metric in METRICS if metric.column.name == "motion")
    assert metric(before, before, now) == pytest.approx(4, rel=0.15)  # the second wave stands still


def test_white_noise_has_no_motion_and_the_expected_flickering(tmp_path):
    one = measured([random_picture(seed=at) for at in range(32)], tmp_path)
    expected_difference = (256**2 - 1) / (3 * 256)  # of two uniform draws from 0 ... 255
    assert one.numbers["temporal_flickering"] == pytest.approx(1 - expected_difference / 255, abs=1e-3)
    assert one.numbers["motion"] == 0  # nothing can be followed
    assert one.seams == one.duplicates == []


def test_brightness_drift_is_the_height_of_a_ramp(tmp_path):
    one = measured([np.full((64, 96, 3), 40 + 2 * at, np.uint8) for at in range(70)], tmp_path)
    assert one.numbers["brightness_drift"] == pytest.approx(2 * 48, abs=1e-3)  # of the last whole window, 48 to 63
    np.testing.assert_allclose(one.curves["brightness_drift"].values, [0, 32, 64, 96, 2 * 59], atol=1e-3)
    assert one.curves["brightness_drift"].counts == (16, 16, 16, 16, 6)
    assert one.numbers["contrast_drift"] == pytest.approx(0, abs=1e-3)
    assert one.numbers["temporal_flickering"] == pytest.approx(1 - 2 / 255)


def test_the_contrast_of_start_and_end_is_as_computed(tmp_path):
    """15 % of 80 frames are 12: in windows of 8, the first or last one and half of the next."""
    levels = np.repeat([40, 70, 200, 90, 100], [8, 8, 48, 8, 8])
    frames = [np.full((64, 96, 3), level, np.uint8) for level in levels]
    one = measured(frames, tmp_path, instruments=Instruments(window=8))
    assert one.numbers["start_end_brightness"] == pytest.approx(
        (100 * 8 + 90 * 4) / 12 - (40 * 8 + 70 * 4) / 12, abs=1e-3
    )
    assert one.numbers["start_end_contrast"] == pytest.approx(0, abs=1e-4)
    assert "start_end_motion" in one.numbers
    curve = Curve(8, (1, math.nan, 5), (8, 0, 4))
    assert start_end_contrast(curve, 20) == 4
    assert math.isnan(start_end_contrast(Curve(8, (1, 2, math.nan), (8, 8, 0)), 20))
    assert math.isnan(start_end_contrast(Curve(8, (1,), (8,)), 8))


def test_contrast_and_saturation_drift_are_as_computed(tmp_path):
    halves = np.array([[100, 100, 100], [200, 150, 100]], np.uint8)  # grey; saturation 0.5
    frames = [np.full((64, 96, 3), halves[int(at >= 16)]) for at in range(32)]
    frames[16:] = [
        frame * (np.arange(96) % 2)[:, None].astype(np.uint8) for frame in frames[16:]
    ]  # every other is black
    one = measured(frames, tmp_path)
    assert one.numbers["saturation_drift"] == pytest.approx(0.25)
    assert one.numbers["contrast_drift"] == pytest.approx((0.299 * 200 + 0.587 * 150 + 0.114 * 100) / 2, abs=1e-3)


@pytest.mark.parametrize("cut", [1, 17, 38])
def test_a_cut_is_a_seam_and_a_repeated_frame_a_duplicate(cut, tmp_path):
    frames = moving(40, step=(0, 1))
    smooth = [(frame // 8 + 20).astype(np.uint8) for frame in frames]
    smooth[cut:] = [255 - frame for frame in smooth[cut:]]
    smooth[30] = smooth[29]
    one = measured(smooth, tmp_path)
    assert one.seams == [cut]
    assert one.duplicates == [30]
    assert (one.numbers["seams"], one.numbers["duplicates"]) == (1, 1)


def disks(radii):
    """A white disk on grey of each radius, its edge as wide as a pixel."""
    y, x = np.mgrid[0:64, 0:96]
    inside = [np.clip(radius - np.hypot(y - 32, x - 48), 0, 1)[..., None] for radius in radii]
    return [(80 + 175 * share.repeat(3, axis=2)).astype(np.uint8) for share in inside]


def test_the_turning_points_of_an_oscillation_are_no_duplicates(tmp_path):
    frames = disks(20 + 8 * np.sin(2 * np.pi * (np.arange(48) - 0.5) / 16))
    turns = [at for at in range(2, 47) if np.array_equal(frames[at], frames[at - 1])]
    assert len(turns) > 3
    assert measured(frames, tmp_path / "whole").duplicates == []
    frames.insert(10, frames[9])
    assert measured(frames, tmp_path / "one repeated").duplicates == [10]


def test_fast_motion_is_no_seam_but_a_flash_is_two(tmp_path):
    frames = disks(12 + 20 * np.exp(-(((np.arange(60) % 30 - 15) / 3) ** 2)) + np.arange(60) / 10)
    assert measured(frames, tmp_path / "smooth").seams == []
    frames[22] = 255 - frames[22]
    assert measured(frames, tmp_path / "flash").seams == [22, 23]


@pytest.mark.parametrize("noise", [0, 5, 60])
def test_ssim_equals_that_of_scikit_image(noise):
    rng = np.random.default_rng(noise)
    picture = luma_of(np.kron(random_picture(20, 30), np.ones((4, 5, 1), np.uint8)))
    other = np.clip(picture + noise * rng.standard_normal(picture.shape), 0, 255)
    theirs = structural_similarity(
        picture.astype(float), other, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(picture, other) == pytest.approx(theirs, abs=1e-9)
    assert noise or theirs == 1


def test_ssim_is_measured_until_the_reference_ends(tmp_path):
    frames = moving(20)
    reference = folder_of([*frames[:5], *moving(5, seed=1)], tmp_path / "reference")
    one = measured(frames, tmp_path, instruments=Instruments(window=5, reference=reference))
    first, second = one.curves["ssim_to_reference"].values[:2]
    assert first == pytest.approx(1)
    assert second < 0.1
    assert one.curves["ssim_to_reference"].counts == (5, 5, 0, 0)
    assert one.numbers["ssim_to_reference"] == pytest.approx((first + second) / 2)


def test_consistency_of_rotating_features_is_as_computed():
    """On a circle, 30 degrees a frame: both cosines are known, and that to the first is clamped from frame 4 on."""
    features = [np.array([np.cos(at * np.pi / 6), np.sin(at * np.pi / 6)]) for at in range(7)]
    blank = np.zeros((16, 16, 3), np.uint8)
    views = [View(blank, clip=one, patches=one, text=features[0], latent=one) for one in features]
    values = {
        metric.column.name: [metric(views[0], before, now) for before, now in pairwise(views)]
        for metric in METRICS
        if metric.needs != "reference"
    }
    to_first = [math.cos(at * math.pi / 6) for at in range(1, 7)]
    expected = [(max(0, cosine) + math.cos(math.pi / 6)) / 2 for cosine in to_first]
    for name in ("background_consistency", "clip_patch_consistency"):
        np.testing.assert_allclose(values[name], expected, atol=1e-7)
    for name in ("clip_f", "latent_consistency"):
        np.testing.assert_allclose(values[name], [math.cos(math.pi / 6)] * 6, atol=1e-7)
    np.testing.assert_allclose(values["text_alignment"], to_first, atol=1e-7)


def test_measuring_in_windows_equals_measuring_all_frames_at_once(tmp_path):
    rng = np.random.default_rng(3)
    frames = np.stack(moving(37)) // 2 + rng.integers(0, 60, (37, 64, 96, 3), dtype=np.uint8)
    one = measured(frames, tmp_path)
    pairs = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3))
    assert one.numbers["temporal_flickering"] == pytest.approx(1 - pairs.mean() / 255)
    windows = [pairs[:15], pairs[15:31], pairs[31:]]  # a pair belongs to its second frame
    np.testing.assert_allclose(one.curves["temporal_flickering"].values, [1 - pair.mean() / 255 for pair in windows])
    brightness = (frames @ [0.299, 0.587, 0.114]).mean((1, 2))
    drift = brightness[16:32].mean() - brightness[:16].mean()
    assert one.numbers["brightness_drift"] == pytest.approx(abs(drift), abs=1e-3)


def test_memory_does_not_grow_with_the_video(tmp_path):
    peaks = []
    for count in (32, 128):
        (source,), _ = find_sources([folder_of(moving(count), tmp_path / str(count))])
        measure(source, Instruments())  # caches are filled
        tracemalloc.start()
        measure(source, Instruments())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_shapes_are_read_in_every_window(tmp_path):
    frames = shapes_video((20, 30), count=48)
    frames[16:32] = frames[15]
    frames[32:] = shapes_video((20, 15), (65, 48), count=16)
    one = measured(frames, tmp_path, prompt=CIRCLE.caption)
    curves = {name: curve.values for name, curve in one.curves.items() if name.startswith("shapes_")}
    assert curves["shapes_background"] == (1, 1, 1)
    assert curves["shapes_motion"][:2] == curves["shapes_all_four"][:2] == (1, 0)
    assert curves["shapes_color"][:2] == curves["shapes_shape"][:2] == (1, 1)
    assert curves["shapes_one_object"] == (1, 1, 0)
    assert one.numbers["shapes_one_object"] == pytest.approx(2 / 3)


def test_windows_across_a_change_of_prompt_are_not_read(tmp_path):
    """Windows are judged by the prompt that they show; the one in which it changes is not judged."""
    prompts = f'{{"0": "{CIRCLE.caption}", "24": "{CIRCLE.caption.replace("red", "blue")}"}}'
    one = measured(shapes_video((20, 30), count=48), tmp_path, prompt=prompts)
    assert one.curves["shapes_color"].values[::2] == (1, 0)
    assert math.isnan(one.curves["shapes_color"].values[1])


def test_an_object_across_the_edge_is_counted_once():
    for x, y in ((0, 30), (40, 0), (95, 63)):
        assert count_objects(shapes_video((x, y), count=8)) == 1
    assert count_objects(shapes_video((20, 15), (65, 48), count=8)) == 2
    assert count_objects(np.full((8, 64, 96, 3), 16, np.uint8)) == 0
    assert count_objects(np.kron(shapes_video((0, 15), (50, 48), count=8), np.ones((1, 4, 4, 1), np.uint8))) == 2
