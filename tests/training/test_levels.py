"""The noise levels of training clips are of the kinds, and as often, as the config says."""

import pytest
import torch
import yaml
from helpers import tiny_config
from torch import Tensor

from lvdm.models.loading import instantiate_from_config
from lvdm.training.config import Training
from lvdm.training.diffusion import DiffusionTraining, Objective
from lvdm.training.levels import LevelShares, clip_levels
from lvdm.training.optimization import Optimization

CLIPS, LENGTH = 2000, 16


def only(kind: str, **settings: object):
    torch.manual_seed(0)
    return clip_levels(LevelShares(**{kind: 1.0}, **settings), CLIPS, LENGTH)


def assert_uniform(timesteps: Tensor):
    assert timesteps.min() < 5
    assert timesteps.max() > 994
    assert timesteps.float().mean().item() == pytest.approx(499.5, abs=25)


def test_constant_clips_have_one_uniform_timestep():
    levels = only("constant")
    assert (levels.timesteps == levels.timesteps[:, :1]).all()
    assert_uniform(levels.timesteps[:, 0])
    assert levels.noisy.all()
    assert levels.own_picture.all()


def test_diagonals_rise_by_a_slope_within_bounds_and_are_clipped_at_both_ends():
    levels = only("diagonal", slopes=(10, 20))
    rise, timesteps = levels.timesteps.diff(dim=1), levels.timesteps
    inside = (timesteps[:, :-1] > 0) & (timesteps[:, 1:] < 999)
    assert rise[inside].min() == 10
    assert rise[inside].max() == 20
    assert (rise >= 0).all()
    assert ((timesteps == 0).sum(1) > 1).float().mean() > 0.05  # clean frames in front
    assert timesteps.max() <= 999
    assert (rise > 0).any(1).float().mean() > 0.95
    assert levels.noisy.all()
    assert not levels.own_picture.any()


def test_plateaus_are_diagonals_of_two_or_four_frames_a_level():
    rises = only("diagonal", plateaus=1.0).timesteps.diff(dim=1) > 0
    steps = torch.arange(1, LENGTH)
    by_two, by_four = rises[:, steps % 4 == 2].any(1), rises[:, steps % 4 == 0].any(1)
    assert not rises[:, steps % 2 == 1].any()
    assert by_two.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert by_four.float().mean() > 0.9
    some = (only("diagonal", plateaus=0.3).timesteps.diff(dim=1) > 0)[:, steps % 2 == 1].any(1)
    assert some.float().mean().item() == pytest.approx(0.7, abs=0.06)


def test_independent_frames_have_a_uniform_timestep_each():
    levels = only("independent")
    assert_uniform(levels.timesteps)
    assert torch.corrcoef(levels.timesteps.float().T).fill_diagonal_(0).abs().max() < 0.1
    assert levels.noisy.all()
    assert not levels.own_picture.any()


def test_context_is_clean_and_the_frames_after_it_have_one_timestep():
    levels = only("context")
    clean = (~levels.noisy).sum(1)  # c of each clip
    assert clean.unique().tolist() == list(range(1, LENGTH))
    assert (torch.bincount(clean)[1:] > 0.6 * CLIPS / (LENGTH - 1)).all()
    assert torch.equal(levels.noisy, torch.arange(LENGTH) >= clean[:, None])
    assert not levels.timesteps[~levels.noisy].any()
    last = levels.timesteps[:, -1:]
    assert (levels.timesteps == last)[levels.noisy].all()
    assert_uniform(last)
    assert levels.own_picture.all()


def test_between_clean_frames_at_equal_distances_the_others_have_one_timestep():
    levels = only("between")
    stride = levels.noisy[:, 1:].long().argmin(1) + 1  # the next clean frame after frame 0
    assert stride.unique().tolist() == [2, 3, 4, 5]
    assert torch.equal(levels.noisy, torch.arange(LENGTH) % stride[:, None] != 0)
    assert not levels.timesteps[~levels.noisy].any()
    assert (levels.timesteps == levels.timesteps[:, 1:2])[levels.noisy].all()
    assert_uniform(levels.timesteps[:, 1])
    assert not levels.own_picture.any()


def test_every_kind_is_as_frequent_as_its_share():
    torch.manual_seed(0)
    shares = LevelShares(constant=0.1, diagonal=0.3, independent=0.2, context=0.25, between=0.15)
    levels = clip_levels(shares, 10 * CLIPS, LENGTH)
    timesteps, rise = levels.timesteps, levels.timesteps.diff(dim=1)
    given, second = ~levels.noisy.all(1), levels.noisy[:, 1] & levels.noisy[:, -1]
    same = levels.own_picture & ~given
    found = {
        "constant": same,
        "independent": (rise < 0).any(1) & ~given,
        "diagonal": (rise >= 0).all(1) & ~given & ~same,
        "context": given & levels.own_picture,
        "between": given & ~levels.own_picture,
    }
    assert (timesteps == timesteps[:, :1]).all(1)[same].all()
    assert second[found["context"]].float().mean().item() == pytest.approx(1 / 15, abs=0.02)  # one clean frame
    for name, clips in found.items():
        assert clips.float().mean().item() == pytest.approx(getattr(shares, name), abs=0.015), name


def test_the_loss_is_the_mean_over_the_frames_that_are_not_given():
    model = instantiate_from_config(tiny_config("t2v")["model"])
    module = DiffusionTraining(model, optimization=Optimization(steps=1), objective=Objective(caption_dropout=0.0))
    model.unet.out[-1].weight.data.zero_()  # as at the beginning, v is predicted as 0
    batch = {"latents": torch.randn(3, 4, LENGTH, 4, 6), "caption": ["a", "b", "c"], "fps": torch.full((3,), 8)}
    batch["changed"] = torch.ones(3, LENGTH, dtype=torch.bool)
    torch.manual_seed(1)
    levels = clip_levels(LevelShares(context=1.0), 3, LENGTH)
    torch.manual_seed(2)
    loss = module.loss(batch, levels)
    torch.manual_seed(2)
    noise = torch.randn_like(batch["latents"])
    target = module.schedule.target(batch["latents"], levels.timesteps, noise)
    frames = target.transpose(1, 2)[levels.noisy]
    assert 0 < len(frames) < 3 * LENGTH
    assert loss.item() == pytest.approx(frames.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"constant": 0.5, "diagonal": 0.4}, r"objective\.shares are constant 0\.5, diagonal 0\.4, .* that sum to 1"),
        ({"constant": 1.5, "diagonal": -0.5}, r"objective\.shares\.constant is 1\.5, expected a share from 0 to 1"),
        ({"constant": 1.0, "plateaus": 2}, r"objective\.shares\.plateaus is 2, expected a share"),
        ({"diagonal": 1.0, "slopes": [32, 8]}, r"objective\.shares\.slopes is \[32, 8\], expected two positive"),
        ({"constant": 1.0, "wavy": 0.0}, r"objective\.shares has 'wavy', allowed are constant, diagonal, "),
        (0.5, r"objective\.shares is 0\.5, expected a mapping with constant"),
    ],
)
def test_invalid_shares_are_an_error_of_one_line_that_names_the_key(tmp_path, shares, message):
    config = {"model_config": "-", "stage": "diffusion", "output": "-", "data": {"kind": "shapes"}, "clips": 1}
    config |= {"optimization": {"steps": 1}, "objective": {"shares": shares}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=message) as raised:
        Training.from_yaml(tmp_path / "bad.yaml")
    assert "\n" not in str(raised.value)


def test_clips_of_one_frame_cannot_have_clean_frames():
    with pytest.raises(ValueError, match=r"objective\.shares\.context and between must be 0 for clips of 1 frame"):
        clip_levels(LevelShares(context=1.0), 2, 1)
