"""What is done before the first of many videos."""

from dataclasses import replace

import pytest
from helpers import ROOT

from lvdm.cli.arguments import parse_args
from lvdm.io.lock import folder_lock
from lvdm.io.prompts import Prompt
from lvdm.pipeline.batch import check_or_forget_earlier_runs
from lvdm.pipeline.video import videos_of


@pytest.fixture
def options(tmp_path):
    flags = ["--config", str(ROOT / "configs/inference_t2v_tiny.yaml"), "--device", "cpu", "--overwrite"]
    return parse_args([*flags, "--output_dir", str(tmp_path)])


def test_a_video_that_cannot_be_begun_anew_now_is_begun_anew_at_its_turn(options):
    """Otherwise it would be continued, or skipped, although --overwrite was given."""
    free, used = videos_of([Prompt("a red circle", 1), Prompt("a blue star", 2)], options, digest="12ab")
    for video in (free, used):
        video.folder.mkdir(parents=True)
        video.state.touch()
    with folder_lock(used.folder):
        assert [video.begins_anew for video in check_or_forget_earlier_runs([free, used], options)] == [False, True]
    assert not free.state.exists()
    assert used.state.exists()


def test_without_overwrite_nothing_is_removed(options):
    options = replace(options, overwrite=False)
    (video,) = videos_of([Prompt("a red circle", 1)], options, digest="12ab")
    video.folder.mkdir(parents=True)
    video.record.touch()
    assert check_or_forget_earlier_runs([video], options) == [video]
    assert video.record.exists()
