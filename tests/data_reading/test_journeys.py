"""Journeys: each frame depends only on scene and number, its ground truth is right, and captions parse back."""

import json
from collections import Counter
from dataclasses import fields, replace
from itertools import combinations
from random import Random

import numpy as np
import pytest
import torch
from helpers import ROOT

from lvdm.data.journeys.captions import caption_of, parse_caption
from lvdm.data.journeys.clips import JourneyClips
from lvdm.data.journeys.random_scenes import random_scene, varied_words, with_change, with_fewer_words
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import (
    ALL_WORDS,
    CHANGE_FRAMES,
    COLORS,
    HELD_OUT_WORDS,
    PACES,
    PLACES_OF,
    SECOND_COLORS,
    SUBJECTS,
    TRAINING_WORDS,
    Change,
    Look,
    Scene,
    Words,
    words_after,
)
from lvdm.data.journeys.scenery import KINDS, VARIANTS, hashed
from lvdm.training.run import read_dataset

SMALL = {"height": 64, "width": 96}
CAR = Words("car", "red", "right", "steadily", "city", "day")
SCENES = [
    Scene(Words(subject, "red", "left", "fast", places[-1], "day"), Look("blue", detail=index % 3), seed=index)
    for index, (subject, places) in enumerate(PLACES_OF.items())
]


@pytest.mark.parametrize("scene", SCENES, ids=SUBJECTS)
def test_a_frame_depends_only_on_scene_and_number(scene):
    long = render(scene, 990, 6, **SMALL)
    late = render(scene, 993, 2, **SMALL)
    for name in ("frames", "mask", "scroll"):
        np.testing.assert_array_equal(getattr(long, name)[3:5], getattr(late, name))
    assert long.frames.dtype == np.uint8
    assert long.frames.shape == (6, 64, 96, 3)
    assert len({frame.tobytes() for frame in long.frames}) == 6  # something moves


@pytest.mark.parametrize("scene", SCENES, ids=SUBJECTS)
def test_colour_masks_cover_the_pixels_of_that_colour(scene):
    """Give the subject another colour; the pixels that the mask of the colour covers must change."""
    first = render(scene, 40, 1)
    for channel, other in (
        (1, replace(scene, words=replace(scene.words, color="yellow"))),
        (2, replace(scene, look=replace(scene.look, second="green"))),
    ):
        change = np.abs(first.frames[0].astype(int) - render(other, 40, 1).frames[0]).max(-1)
        covered = first.mask[0, ..., channel]
        assert (covered > 250).sum() > 300
        assert change[covered > 250].min() > 60
        assert not change[first.mask[0, ..., 0] == 0].any()
    wanted = {1: COLORS["red"], 2: SECOND_COLORS["blue"]}
    for channel, color in wanted.items():
        np.testing.assert_allclose(np.median(first.frames[0][first.mask[0, ..., channel] > 250], 0), color, atol=1)


def test_colour_masks_lie_within_the_subject_mask():
    for scene in SCENES:
        subject, main, second = np.moveaxis(render(scene, 7, 1).mask[0].astype(int), -1, 0)
        assert (main + second <= subject + 3).all()
        rows = np.flatnonzero((subject > 128).any(1))
        assert rows[-1] - rows[0] >= 54  # the middle half of a picture of 128 rows
        assert subject[:, :20].max() == 0  # only scenery at the sides
        assert subject[:, -20:].max() == 0


def test_facing_left_is_the_mirror_image_of_facing_right():
    words = replace(CAR, pace="standing still")
    right, left = (
        render(Scene(replace(words, direction=way), Look("white")), 0, 1).mask[0] for way in ("right", "left")
    )
    np.testing.assert_array_equal(left, right[:, ::-1])
    assert not np.array_equal(left, right)


def test_a_still_scene_does_not_change_and_a_moving_one_never_repeats():
    still = render(Scene(replace(CAR, pace="standing still", place="desert"), Look("white")), 0, 40, **SMALL)
    assert (still.frames == still.frames[0]).all()
    assert not still.scroll.any()
    pictures = set()
    scene = Scene(replace(CAR, pace="fast", place="forest"), Look("white"), seed=3)
    for begin in range(0, 400_000, 2000):
        pictures.add(render(scene, begin, 1, **SMALL).frames[0, :, :10].tobytes())  # scenery beside the car
    assert len(pictures) == 200


def test_the_ground_moves_as_far_as_scroll_says():
    for direction, sign in (("right", 1), ("left", -1)):
        for pace, speed in (("slowly", 1.5), ("fast", 7.0)):
            scene = Scene(replace(CAR, direction=direction, pace=pace), Look("white"), seed=2)
            clip = render(scene, 10, 3)
            np.testing.assert_allclose(np.diff(clip.scroll), sign * speed)
            shift = round(2 * speed)
            early, late = clip.frames[0, 116:].astype(int), clip.frames[2, 116:].astype(int)
            kept, moved = (early[:, shift:], late[:, :-shift]) if sign > 0 else (early[:, :-shift], late[:, shift:])
            assert np.abs(kept - moved).max() <= 1


def test_hashes_are_uniform_and_have_fixed_values():
    values = np.array([hashed(5, cell, 1) for cell in range(-2000, 2000)])
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05
    assert [round(hashed(*key), 6) for key in ((0,), (1, 2), (-7, 3))] == [
        HASHES[key] for key in ((0,), (1, 2), (-7, 3))
    ]


HASHES = {(0,): 0.42857, (1, 2): 0.714323, (-7, 3): 0.246165}


def test_every_kind_and_variant_of_scenery_has_parts():
    for kind, parts in KINDS.items():
        for variant in range(VARIANTS):
            assert list(parts(variant)), (kind, variant)


def test_a_change_of_time_fades_and_a_change_of_place_enters_from_the_front():
    scene = Scene(CAR, Look("white"), seed=4, changes=(Change(20, time="night"), Change(60, place="forest")))
    assert [scene.words_at(frame).time for frame in (20, 27, 28, 99)] == ["day", "day", "night", "night"]
    assert [scene.words_at(frame).place for frame in (67, 68)] == ["city", "forest"]
    before, after = (replace(scene, words=replace(CAR, time=time), changes=()) for time in ("day", "night"))
    for frame, same in ((20, before), (20 + CHANGE_FRAMES, after)):
        np.testing.assert_array_equal(render(scene, frame, 1).frames, render(same, frame, 1).frames)
    brightness = render(scene, 20, 17, **SMALL).frames.mean((1, 2, 3))
    assert (np.diff(brightness) < 0).all()
    assert brightness[-1] < 0.6 * brightness[0]
    halfway = render(scene, 68, 1).frames[0].astype(int)
    night = {place: replace(CAR, time="night", place=place) for place in ("city", "forest")}
    city, forest = (render(replace(scene, words=words, changes=()), 68, 1).frames[0] for words in night.values())
    assert (
        np.abs(halfway[:, :12] - city[:, :12]).max() <= 1
    )  # the forest enters from the right, where the car is heading
    assert np.abs(halfway[:, -12:] - forest[:, -12:]).max() <= 1


def test_captions_parse_back_to_their_words():
    captions = [caption_of(words) for words in ALL_WORDS]
    assert len(set(captions)) == len(ALL_WORDS)
    assert [parse_caption(caption) for caption in captions] == list(ALL_WORDS)


def test_captions_with_fewer_words_parse_back_to_their_words():
    random = Random(0)
    for words in ALL_WORDS[::5]:
        (partial,) = with_fewer_words([words], random, 0.5)
        assert parse_caption(caption_of(partial)) == partial


def test_captions_have_the_expected_wording():
    assert (
        caption_of(replace(CAR, pace="slowly", time="night"))
        == "a red car driving slowly to the right through a city at night"
    )
    plane = Words("aeroplane", None, "left", "fast", "sky", "sunset")
    assert caption_of(plane) == "an aeroplane flying fast to the left through the sky at sunset"
    person = Words("person", "blue", "left", "standing still", "desert", "day")
    assert caption_of(person) == "a person in blue standing still and facing left in a desert by day"
    assert parse_caption("  A green  sailing boat sailing on the sea ") == Words(
        "sailing boat", "green", None, "steadily", "sea", None
    )


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red circle moving right on a black background",
        "a red car flying to the left through a city by day",
        "a red car driving to the left on the sea by day",
        "an red car driving to the left through a city by day",
        "a red car driving quickly to the left through a city by day",
    ],
)
def test_captions_outside_the_grammar_are_rejected(caption):
    with pytest.raises(ValueError, match="is not a caption of the journeys grammar; an example: 'a red car"):
        parse_caption(caption)


def test_a_fifth_of_all_combinations_is_held_out_and_every_pair_of_words_is_trained_on():
    assert 0.18 < len(HELD_OUT_WORDS) / len(ALL_WORDS) < 0.22
    assert set(HELD_OUT_WORDS).isdisjoint(TRAINING_WORDS)
    assert HELD_OUT_WORDS[0] == Words("car", "red", "left", "standing still", "city", "day")
    names = [field.name for field in fields(Words)]
    for first, second in combinations(names, 2):
        pairs = [
            {(getattr(words, first), getattr(words, second)) for words in split}
            for split in (ALL_WORDS, TRAINING_WORDS)
        ]
        assert pairs[0] == pairs[1]


def test_random_scenes_use_every_word():
    random = Random(1)
    scenes = [random_scene(random, "training") for _ in range(600)]
    assert not any(scene.words.held_out for scene in scenes)
    for name, choices in (("subject", SUBJECTS), ("pace", PACES), ("color", COLORS)):
        counts = Counter(getattr(scene.words, name) for scene in scenes)
        assert min(counts.values()) > 600 / len(choices) / 2
        assert set(counts) == set(choices)
    assert {scene.look.second for scene in scenes} == set(SECOND_COLORS)
    for scene in scenes[:100]:
        change = with_change(scene, random, 100, 16).changes[0]
        assert change.begin < 116
        assert change.begin + CHANGE_FRAMES > 100
        assert not words_after(scene.words, change).held_out


def test_varied_words_use_all_words_about_equally_often():
    chosen = varied_words(60)
    assert set(chosen) <= set(HELD_OUT_WORDS)
    assert len(set(chosen)) == 60
    for name, choices in (("subject", SUBJECTS), ("color", COLORS), ("direction", ("left", "right"))):
        counts = Counter(getattr(words, name) for words in chosen)
        assert len(counts) == len(choices)
        assert min(counts.values()) >= 0.6 * 60 / len(choices)
    with pytest.raises(ValueError, match="count is 9999, expected 1 to"):
        varied_words(9999)


def test_prompt_files_hold_captions_of_the_grammar():
    held_out = (ROOT / "prompts/journeys_held_out.txt").read_text().splitlines()
    assert held_out == [caption_of(words) for words in varied_words(60)]
    default = [parse_caption(line) for line in (ROOT / "prompts/journeys.txt").read_text().splitlines()]
    for name in ("subject", "place", "time"):
        assert len({getattr(words, name) for words in default}) == len(default) == 3
    schedule = json.loads((ROOT / "prompts/journeys_schedule.txt").read_text())
    assert [parse_caption(caption).time for caption in schedule.values()] == ["day", "sunset", "night"]


def test_clips_have_the_items_that_training_expects_and_are_repeatable():
    clips = read_dataset({"kind": "journeys", "size": 4, "frames": 3, **SMALL, "changing": 0.5, "seed": 8})
    again = JourneyClips(4, frames=3, **SMALL, changing=0.5, seed=8)
    for index in range(4):
        item, same = clips[index], again[index]
        assert item["video"].shape == (3, 3, 64, 96)
        assert item["mask"].shape == (1, 3, 64, 96)
        assert item["pictures"].shape == (2, 3, 64, 96)
        assert item["fps"] == 8
        for name in ("video", "mask", "pictures"):
            assert torch.equal(item[name], same[name])
        assert torch.equal(item["video"][:, 0], item["pictures"][0])
        assert not torch.equal(item["pictures"][0], item["pictures"][1]) or "standing" in item["caption"]
        assert -1 <= item["video"].min() < item["video"].max() <= 1
        assert (item["caption_before"], item["caption"]) == clips.scene(index)[2]
    assert len({clips.scene(index)[0] for index in range(4)}) == 4
    with pytest.raises(IndexError):
        clips[4]


def test_captions_of_a_clip_switch_where_its_change_begins_and_leave_out_the_same_words():
    clips, switches = JourneyClips(50, frames=24, height=16, width=16, lead=0, changing=0.8, word_dropout=0.3), set()
    for index in range(len(clips)):
        scene, begin, captions = clips.scene(index)
        before, after = (parse_caption(caption) for caption in captions)
        omitted = [
            {name for name in ("color", "direction") if getattr(words, name) is None} for words in (before, after)
        ]
        assert omitted[0] == omitted[1]
        assert (before.place is None, before.time is None) == (after.place is None, after.time is None)
        last = words_after(scene.words, scene.changes[0]) if scene.changes else scene.words
        for said, true in ((before, scene.words), (after, last)):
            assert all(getattr(said, field.name) in (None, getattr(true, field.name)) for field in fields(Words))
        switch = 0 if captions[0] == captions[1] else max(0, scene.changes[0].begin - begin)
        switches |= {switch} - {0}
        if index < 12:  # these are rendered, too
            item = clips[index]
            assert (item["caption_before"], item["caption"], item["switch"]) == (*captions, switch)
    assert len(switches) > 10
    assert 15 < max(switches) < 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "orange"}, "color is 'orange', allowed are red, yellow"),
        ({"place": "sea"}, "place of a car is 'sea', allowed are city, desert, forest"),
        ({"time": None}, "time is None, allowed are day, sunset, night"),
        ({"subject": "aeroplane", "place": "sky", "pace": "standing still"}, "an aeroplane cannot stand still"),
    ],
)
def test_unknown_or_impossible_words_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        Scene(replace(CAR, **change), Look("white"))


def test_errors_name_the_bad_value_and_what_is_allowed():
    with pytest.raises(ValueError, match="second colour is 'red', allowed are yellow"):
        Scene(CAR, Look("red"))
    with pytest.raises(ValueError, match="changes begin at frames 5 and 20, expected at least 16 frames between them"):
        Scene(CAR, Look("white"), changes=(Change(5, time="night"), Change(20, time="day")))
    with pytest.raises(ValueError, match="place of a car is 'sea'"):
        Scene(CAR, Look("white"), changes=(Change(5, place="sea"),))
    with pytest.raises(ValueError, match="count is 0, expected at least 1 frame"):
        render(SCENES[0], 0, 0)
    with pytest.raises(ValueError, match="8 x 12 pixels is too small"):
        render(SCENES[0], 0, 1, height=8, width=12)
    for key, message in ({"scenes": "some"}, "scenes is 'some'"), ({"changing": 2}, "changing is 2"):
        with pytest.raises(ValueError, match=f"data of kind 'journeys': {message}"):
            read_dataset({"kind": "journeys", "size": 4, **key})
