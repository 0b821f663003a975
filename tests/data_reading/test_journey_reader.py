"""The reader of journeys is right on rendered and on degraded clips, and reads nothing where there is nothing."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lvdm.data.journey_reader import read_clip, read_windows, score
from lvdm.data.journey_scroll import scroll_steps
from lvdm.data.journeys.random_scenes import random_scene
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import Change, Look, Scene, Words

BUS = Scene(Words("bus", "green", "left", "fast", "forest", "sunset"), Look("yellow"), seed=9)


def sample(count: int, **size: int) -> list[tuple[Scene, np.ndarray]]:
    """Return `count` random scenes with 8 frames of each; `size` may have height and width."""
    random = Random(7)
    scenes = [random_scene(random, "all") for _ in range(count)]
    return [(scene, render(scene, random.randrange(10**6), 8, **size).frames) for scene in scenes]


def share_right(clips: list[tuple[Scene, np.ndarray]]) -> float:
    """Return the share of clips of which every word and the second colour are read right."""
    judged = [score(read_clip(frames), scene.words, scene.look.second) for scene, frames in clips]
    return np.mean([all(words.values()) for words in judged])


def test_rendered_clips_are_read_right():
    assert share_right(sample(36)) >= 0.97


def test_small_clips_are_read_right():
    assert share_right(sample(20, height=64, width=96)) >= 0.95


def test_blurred_and_noisy_clips_are_read_right():
    random = np.random.default_rng(0)
    degraded = []
    for scene, frames in sample(20):
        blurred = gaussian_filter(frames.astype(np.float32), (0, 1.5, 1.5, 0)) + random.normal(0, 12, frames.shape)
        degraded.append((scene, (0.85 * blurred + 15).clip(0, 255).astype(np.uint8)))
    assert share_right(degraded) >= 0.9


def test_speed_and_scroll_are_measured():
    frames = render(BUS, 50, 9).frames
    assert read_clip(frames).speed == pytest.approx(-7.0, abs=0.2)
    np.testing.assert_allclose(scroll_steps(frames), -7.0, atol=0.1)
    between_pixels = replace(BUS, words=replace(BUS.words, pace="steadily"))
    np.testing.assert_allclose(scroll_steps(render(between_pixels, 50, 9).frames), -3.5, atol=0.1)
    mirrored = read_clip(np.ascontiguousarray(frames[:, :, ::-1]))
    assert (mirrored.direction, mirrored.facing, mirrored.speed > 0) == ("right", "right", True)


def test_facing_is_read_from_the_subject_and_direction_from_the_ground():
    backwards = read_clip(render(BUS, 50, 8).frames[::-1])
    assert (backwards.facing, backwards.direction, backwards.pace) == ("left", "right", "fast")


def test_a_change_of_the_second_colour_is_read():
    other = replace(BUS, look=replace(BUS.look, second="red"))
    frames = np.concatenate([render(BUS, 0, 32).frames, render(other, 32, 16).frames])
    assert [reading.second for reading in read_windows(frames)] == ["yellow", "yellow", "red"]


def test_windows_show_changes_of_time_and_place():
    scene = replace(BUS, changes=(Change(16, time="night"), Change(48, place="city")))
    readings = read_windows(render(scene, 0, 80).frames)
    assert [reading.time for reading in readings][::2] == ["sunset", "night", "night"]
    assert [reading.place for reading in readings][::2] == ["forest", "forest", "city"]
    assert {(reading.color, reading.second) for reading in readings} == {("green", "yellow")}
    assert len(read_windows(render(scene, 0, 20).frames, step=2)) == 3


def test_nothing_is_read_from_noise_or_a_plain_colour():
    noise = np.random.default_rng(1).integers(0, 256, (8, 128, 192, 3), dtype=np.uint8)
    plain = np.full((8, 128, 192, 3), 200, np.uint8)
    for frames in (noise, plain):
        reading = read_clip(frames)
        assert (reading.subject, reading.color, reading.second, reading.facing, reading.speed) == (None,) * 5


def test_no_subject_is_read_from_scenery_alone():
    clip = render(BUS, 0, 8, height=128, width=192)
    frames = clip.frames.copy()
    frames[:, :, 20:172] = np.tile(frames[:, :, :19], (1, 1, 8, 1))  # scenery where the bus is
    reading = read_clip(frames)
    assert reading.subject is None
    assert (reading.place, reading.time) == ("forest", "sunset")


@pytest.mark.parametrize(
    "frames", [np.zeros((3, 64, 96, 3), np.uint8), np.zeros((8, 64, 96, 3)), np.zeros((8, 64, 96))]
)
def test_frames_of_another_shape_or_type_are_rejected(frames):
    with pytest.raises(ValueError, match="expected uint8"):
        read_clip(frames)
    with pytest.raises(ValueError, match="expected uint8"):
        scroll_steps(frames)


def test_frames_that_are_too_narrow_are_rejected():
    with pytest.raises(ValueError, match="frames are 64 x 64, expected a width of 96 or more"):
        read_clip(np.zeros((8, 64, 64, 3), np.uint8))


def test_only_the_middle_of_wide_frames_is_read():
    assert all(score(read_clip(render(BUS, 3, 8, height=64, width=128).frames), BUS.words, "yellow").values())
