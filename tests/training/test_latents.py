"""Clips are encoded once, in files that an interrupted run continues, and are trained on in stretches."""

from dataclasses import replace

import pytest
import torch
import yaml
from helpers import tiny_config, with_golden_weights
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lvdm.data.journeys.clips import JourneyClips
from lvdm.models.loading import instantiate_from_config
from lvdm.training import encoding
from lvdm.training.config import Training
from lvdm.training.diffusion import DiffusionTraining, Objective, context_of, some_frames
from lvdm.training.encoding import encode_clip, encode_clips
from lvdm.training.latents import LatentClips
from lvdm.training.optimization import Optimization
from lvdm.training.run import read_dataset, set_up_diffusion


def numbered(frames: int, switch: int, **settings: object) -> LatentClips:
    """Return one clip that shows each frame's number; the picture from before it shows 200."""
    numbers = torch.arange(frames)
    pictures = torch.cat([numbers[::8], torch.tensor([200])]).byte().view(1, -1, 1, 1, 1).expand(-1, -1, 3, 2, 2)
    cells = numbers.view(1, 1, -1, 1, 1).expand(-1, -1, -1, 2, 2)
    return LatentClips(cells.half(), cells.byte(), [("by day", "at night")], [switch], [8], pictures, **settings)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return with_golden_weights(instantiate_from_config(tiny_config("i2v")["model"]), "")


class Interrupted(Dataset):
    """Clips of which number `last` cannot be read."""

    def __init__(self, clips: Dataset, last: int):
        self.clips, self.last, self.read = clips, last, []

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        if index == self.last:
            raise InterruptedError
        self.read.append(index)
        return self.clips[index]


def test_a_stretch_begins_at_a_stored_picture_and_keeps_its_own_captions():
    torch.manual_seed(0)
    clips, begins = numbered(32, switch=10, window=12), set()
    for _ in range(60):
        item = clips[0]
        begin = int(item["latents"][0, 0, 0, 0])
        begins.add(begin)
        expected = torch.arange(begin, begin + 12)
        assert torch.equal(item["latents"][0, :, 0, 0], expected.float())
        assert torch.equal((item["mask"][0, :, 0, 0] * 255).round(), expected.float())
        shown = ((item["pictures"][:, 0, 0, 0] + 1) * 127.5).round().tolist()
        assert shown == [begin, 200]
        assert torch.equal(item["changed"], expected >= 10)
        assert (item["caption_before"], item["caption"]) == ("by day", "at night")
    assert begins == {0, 8, 16}


def test_a_stretch_before_the_switch_has_the_first_caption_only():
    item = numbered(32, switch=20)[0]
    assert item["changed"].tolist() == [False] * 20 + [True] * 12
    for begin in (numbered(16, switch=16, window=16), numbered(16, switch=18, window=8)):
        item = begin[0]
        assert item["caption"] == "by day"
        assert item["changed"].all()
    item = numbered(16, switch=0)[0]
    assert item["caption"] == "at night"
    assert item["changed"].all()


def test_encoding_goes_on_where_it_was_interrupted(model, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "SHARD", 2)
    clips = JourneyClips(5, frames=10, height=32, width=48, changing=1.0)
    with pytest.raises(InterruptedError):
        encode_clips(model, Interrupted(clips, 3), tmp_path)
    rest = Interrupted(clips, 0)
    encoded = encode_clips(model, rest, tmp_path)
    assert rest.read == [2, 3, 4]
    assert len(encoded) == 5
    torch.testing.assert_close(encode_clips(model, Interrupted(clips, 1), tmp_path).latents, encoded.latents)
    for index in range(5):
        clip, alone = clips[index], encode_clip(model, clips[index])
        for name in ("latents", "masks", "pictures"):
            torch.testing.assert_close(getattr(encoded, name)[index], getattr(alone, name)[0])
        assert encoded.captions[index] == (clip["caption_before"], clip["caption"])
        assert encoded.switches[index] == clip["switch"]
        frames = clip["video"].transpose(0, 1)
        torch.testing.assert_close(
            encoded.latents[index].transpose(0, 1), model.encode(frames).half(), atol=2e-3, rtol=2e-3
        )


def test_clips_that_other_processes_make_are_the_same(model, tmp_path):
    clips = JourneyClips(3, frames=2, height=32, width=48)
    alone, helped = (encode_clips(model, clips, tmp_path / str(workers), workers=workers) for workers in (0, 1))
    assert torch.equal(alone.latents, helped.latents)
    assert alone.captions == helped.captions


def test_pictures_of_the_size_of_the_encoder_have_the_same_tokens(model):
    clips = [JourneyClips(4, frames=9)[index] for index in range(4)]
    full = torch.stack([torch.stack([clip["video"][:, 0], clip["video"][:, 8], clip["pictures"][1]]) for clip in clips])
    stored = torch.cat([encode_clip(model, clip).pictures for clip in clips])  # (4, 3, 3, 64, 64)
    assert stored.shape == (4, 3, 3, 64, 64)
    theirs = model.encode_pictures(full.flatten(0, 1))
    ours = model.encode_pictures(stored.flatten(0, 1).float() / 127.5 - 1)
    assert (ours - theirs).norm() < 0.01 * (theirs - theirs.roll(3, 0)).norm()  # three are of one clip
    small = JourneyClips(1, frames=1, height=32, width=48)[0]
    assert encode_clip(model, small).pictures.shape == (1, 2, 3, 32, 48)  # not enlarged


def module_of(model, **objective: float) -> DiffusionTraining:
    return DiffusionTraining(model, optimization=Optimization(steps=1), objective=Objective(**objective))


def batch_of(*switches: int) -> dict:
    clips = (replace(numbered(16, switch), captions=[(f"day {switch}", f"night {switch}")]) for switch in switches)
    return default_collate([clip[0] for clip in clips])


def test_frames_before_the_switch_have_the_context_of_the_first_caption(model):
    batch = batch_of(5, 0)
    own = torch.tensor([True, False])
    context = context_of(model, batch, own, caption_dropout=0.0, picture_dropout=0.0)
    day, night, other = model.encode_text(["day 5", "night 5", "night 0"])
    assert context.shape[:2] == (2, 16)
    torch.testing.assert_close(context[0, :, :77], torch.cat([day.expand(5, -1, -1), night.expand(11, -1, -1)]))
    torch.testing.assert_close(context[1, :, :77], other.expand(16, -1, -1))
    pictures = torch.stack([batch["pictures"][0, 0], batch["pictures"][1, 1]])
    tokens = model.encode_pictures(pictures).expand(-1, 16, -1, -1)
    torch.testing.assert_close(context[:, :, 77:], tokens)
    unchanged = context_of(model, batch_of(0, 16), own, caption_dropout=0.0, picture_dropout=0.0)
    assert unchanged.shape[:2] == (2, 1)
    chosen = some_frames(batch, 3)
    assert chosen["latents"].shape[2] == 3
    assert torch.equal(chosen["changed"][0], chosen["latents"][0, 0, :, 0, 0] >= 5)


def test_both_captions_of_a_clip_are_left_out_together(model):
    torch.manual_seed(0)
    empty, *others = model.encode_text(["", "day 5", "night 5"])
    own = torch.ones(40, dtype=torch.bool)
    contexts = context_of(model, batch_of(*[5] * 40), own, caption_dropout=0.5, picture_dropout=0.0)[:, :, :77]

    def are(part: Tensor, text: Tensor) -> Tensor:
        return (part - text).abs().amax((1, 2, 3)) < 1e-5

    without = are(contexts[:, :5], empty) & are(contexts[:, 5:], empty)
    assert 8 < without.sum() < 32
    assert torch.equal(~without, are(contexts[:, :5], others[0]) & are(contexts[:, 5:], others[1]))


@pytest.mark.parametrize("window", [0, 17])
def test_a_window_that_clips_do_not_have_is_an_error_before_anything_is_encoded(model, tmp_path, window):
    config = {"model_config": "-", "stage": "diffusion", "output": str(tmp_path / "run"), "clips": 1, "window": window}
    config |= {"optimization": {"steps": 1}, "data": {"kind": "journeys", "size": 1}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    training = Training.from_yaml(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match=f"window is {window}, expected 1 to 16, the frames of a clip"):
        set_up_diffusion(model, read_dataset(training.data), training)
    assert not list(tmp_path.glob("latents*"))
