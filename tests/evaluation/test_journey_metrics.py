"""Journeys are measured right where the truth is known: on rendered ones, whole, spliced and stuttering."""

import json
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
from helpers import RED, write_pictures

from lvdm.data.journey_reader import Reading
from lvdm.data.journeys.captions import caption_of
from lvdm.data.journeys.render import render
from lvdm.data.journeys.scene import Change, Look, Scene, Words
from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.journeys import Journey, Window, facing_flips, journey_of, switches
from lvdm.evaluation.measure import Measurement, measure
from lvdm.evaluation.report import Report, markdown
from lvdm.evaluation.sources import find_sources

CAR = Scene(Words("car", "red", "left", "steadily", "desert", "day"), Look("yellow"), seed=3)
CAPTION = caption_of(CAR.words)
OTHER = replace(CAR, look=Look("blue"))
ONE_IN_160 = 100 / 160  # events per 100 frames


def rendered(scene: Scene, begin: int, end: int) -> np.ndarray:
    """Return frames `begin` to `end` - 1, (T, 64, 96, 3)."""
    return render(scene, begin, end - begin, height=64, width=96).frames


def measured(frames: np.ndarray, folder, prompt: str) -> Measurement:
    """Measure frames with the prompt, or schedule, in a file beside them."""
    write_pictures(folder / "video", list(frames))
    (folder / "video.txt").write_text(prompt)
    (source,), _ = find_sources([folder / "video"])
    return measure(source, Instruments())


def read(frames: np.ndarray, *schedule: tuple[int, str]) -> Journey:
    """Read frames with a schedule of captions."""
    journey = journey_of(schedule, *frames.shape[1:3])
    for frame in frames:
        journey.add(frame)
    return journey


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return rendered(CAR, 0, 160)


def test_a_rendered_journey_keeps_its_look_and_shows_its_words(plain, tmp_path):
    one = measured(plain, tmp_path, CAPTION)
    for name in ("second_color_kept", "subject", "color", "direction", "facing", "place", "time", "all_words"):
        assert one.numbers[f"journey_{name}"] == 1
        assert one.numbers[f"start_end_journey_{name}"] == 0
    assert one.numbers["journey_switches"] == one.numbers["journey_facing_flips"] == 0
    assert one.numbers["journey_jerk"] < 0.1
    assert one.numbers.keys().isdisjoint({"journey_pace", "journey_prompt_delay"})
    assert one.curves["journey_time"].counts == (1, *[2] * 9)  # windows by their middles, one every 8 frames


def test_only_words_that_a_caption_names_are_judged(plain):
    numbers = read(plain[:32], (0, "a blue car driving slowly at night")).curves(32)
    shown = {name.removeprefix("journey_"): curve.values[0] for name, curve in numbers.items()}
    del shown["jerk"], shown["second_color_kept"]
    assert shown == {"subject": 1, "color": 0, "pace": 0, "time": 0, "all_words": 0}


def test_another_second_colour_is_one_switch(plain, tmp_path):
    one = measured(np.concatenate([plain[:80], rendered(OTHER, 80, 160)]), tmp_path, CAPTION)
    assert one.numbers["journey_switches"] == ONE_IN_160
    assert one.numbers["journey_second_color_kept"] == pytest.approx(0.5, abs=0.06)  # 8 or 9 of 18
    assert one.numbers["start_end_journey_second_color_kept"] == 1
    assert (one.numbers["journey_facing_flips"], one.numbers["journey_color"]) == (0, 1)


def test_a_mirrored_half_is_one_flip_unless_the_schedule_asks_for_it(plain):
    frames = np.concatenate([plain[:80], plain[80:, :, ::-1]])
    journey = read(frames, (0, CAPTION))
    assert journey.numbers() == {"journey_facing_flips": ONE_IN_160, "journey_switches": 0}
    assert journey.curves(80)["journey_direction"].values == pytest.approx((1, 0), abs=0.1)
    schedule = [(0, CAR.words), (80, replace(CAR.words, direction="right"))]
    assert facing_flips(journey.windows, schedule) == 0


def windows(name: str, words: str) -> list[Window]:
    """Return a window for each of `words`, the readings of one field; "-" is None."""
    nothing = Reading(*[None] * 9)
    read = (replace(nothing, **{name: None if word == "-" else word}) for word in words.split())
    return [Window(8 * at, reading, math.nan) for at, reading in enumerate(read)]


def test_windows_that_cannot_be_read_are_no_change():
    assert switches(windows("second", "- red - red blue - - blue red -")) == 2
    assert switches(windows("second", "- red - -")) is None
    assert facing_flips(windows("facing", "left - left right - right"), [(0, CAR.words)]) == 1


def test_a_schedule_excuses_one_flip_to_each_direction():
    right = replace(CAR.words, direction="right")
    schedule = [(0, CAR.words), (40, right), (80, CAR.words)]
    for shown, flips in (
        ("left left left left left right right right right right left left", 0),
        ("left left left left left right left right right right left left", 2),
        ("left left right right right right right right right right left left", 1),
        ("left left left left left left left left left left left right left", 2),
    ):
        assert facing_flips(windows("facing", shown), schedule) == flips


def test_the_delay_of_a_prompt_is_that_of_the_picture(plain):
    """A rendered change is half done after 8 frames; one from a frame to the next, at once."""
    schedule = (0, CAPTION), (24, CAPTION.replace("by day", "at night"))
    slow = read(rendered(replace(CAR, changes=(Change(35, time="night"),)), 0, 64), *schedule).numbers()
    assert slow["journey_prompt_delay"] == pytest.approx(11 + 9, abs=2)
    night = replace(CAR, words=replace(CAR.words, time="night"))
    at_once = read(np.concatenate([plain[:24], rendered(night, 24, 56)]), *schedule).numbers()
    assert at_once["journey_prompt_delay"] in (0, 1)


def test_a_prompt_that_is_never_shown_is_as_late_as_the_next_or_the_end(plain):
    night, sunset = (CAPTION.replace("by day", phrase) for phrase in ("at night", "at sunset"))
    assert read(plain[:48], (0, CAPTION), (24, night)).numbers()["journey_prompt_delay"] == 24
    assert read(plain[:48], (0, CAPTION), (16, night), (24, sunset)).numbers()["journey_prompt_delay"] == (8 + 24) / 2


def test_windows_are_judged_by_the_prompt_in_force(plain, tmp_path):
    night = replace(CAR, words=replace(CAR.words, time="night"))
    frames = np.concatenate([plain[:50], rendered(night, 50, 96)])
    prompts = {"0": CAPTION, "50": caption_of(night.words)}
    one = measured(frames, tmp_path, json.dumps(prompts))
    assert one.numbers["journey_time"] == 1
    assert sum(one.curves["journey_time"].counts) == 11 - 2  # those at 40 and 48 show both
    assert one.numbers["journey_second_color_kept"] == 1


def test_another_subject_may_have_another_second_colour(plain):
    journey = read(plain[:48], (0, CAPTION), (24, CAPTION.replace("car", "bus")))
    assert "journey_switches" not in journey.numbers()
    assert "journey_second_color_kept" not in journey.curves(16)


def test_stuttering_has_the_jerk_of_its_steps(plain):
    stuttering = read(plain[:64:2].repeat(2, 0), (0, CAPTION)).curves(64)["journey_jerk"]
    assert stuttering.values[0] == pytest.approx(4 * 3.5 / 2, rel=0.05)  # 3.5 units a frame are 1.75 of these pixels


def test_only_a_window_and_a_stride_of_frames_are_kept():
    journey = journey_of([(0, CAPTION)], 64, 96)
    references = []
    for _ in range(64):
        frame = np.zeros((64, 96, 3), np.uint8)
        references.append(weakref.ref(frame))
        journey.add(frame)
    del frame
    assert sum(reference() is not None for reference in references) < 16 + 8


@pytest.mark.parametrize(
    "prompt", [RED, "a cat", json.dumps({"0": CAPTION, "8": "a cat"}), "a red car driving on the sea"]
)
def test_other_prompts_are_left_out_with_the_reason(prompt, tmp_path):
    one = measured(rendered(CAR, 0, 24), tmp_path, prompt)
    assert not any("journey" in name for name in (*one.numbers, *one.curves))
    (source,), _ = find_sources([tmp_path / "video"])
    text = markdown(Report([(source, one)], None, {}, {}, []))
    (note,) = (line for line in text.splitlines() if "no prompt is a caption of the journeys grammar" in line)
    assert "journey_second_color_kept" in note
    assert "start_end" not in note


@pytest.mark.parametrize("size", [(12, 64, 96), (24, 64, 64), (24, 24, 48)])
def test_videos_that_are_too_short_or_small_to_be_read_are_left_out(size, tmp_path):
    one = measured(np.zeros((*size, 3), np.uint8), tmp_path, CAPTION)
    assert not any("journey" in name for name in one.numbers)
