"""Contexts of text and picture, and guidance."""

import warnings
from itertools import product

import pytest
import torch
from helpers import ROOT, with_golden_weights

from lvdm.diffusion.conditioning import Conditioning, EncodedPicture, dealt_out
from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.io.configs import read_config
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.models.loading import instantiate_from_config

CAT, DOG = [(0, "a cat")], [(0, "a dog")]


@pytest.fixture(scope="module")
def visual_model() -> LatentDiffusion:
    return with_golden_weights(
        instantiate_from_config(read_config(ROOT / "configs/inference_i2v_tiny.yaml")["model"]), ""
    )


def test_without_a_picture_both_halves_have_the_blank_one(visual_model):
    conditioning = Conditioning.of_text(visual_model, CAT, fps=8)
    blank = visual_model.encode_pictures(torch.zeros(1, 3, 64, 96))
    assert conditioning.contexts.shape == conditioning.unconditional.shape == (1, 1, 77 + 16, 64)
    for half, text in ((conditioning.contexts, "a cat"), (conditioning.unconditional, "")):
        torch.testing.assert_close(half[:, :, 77:], blank)
        torch.testing.assert_close(half[:, :, :77], visual_model.encode_text([text]))


def test_decoded_pictures_beyond_black_and_white_are_clamped(visual_model):
    pictures = 3 * torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(visual_model.encode_pictures(pictures), visual_model.encode_pictures(pictures.clamp(-1, 1)))


def test_a_picture_takes_the_place_of_the_one_before(visual_model):
    torch.manual_seed(0)
    blank = Conditioning.of_text(visual_model, CAT, fps=8)
    pictures = [visual_model.encode_pictures(2 * torch.rand(1, 3, 64, 96) - 1) for _ in range(2)]
    twice = blank.with_picture(EncodedPicture(pictures[0])).with_picture(EncodedPicture(pictures[1]))
    assert torch.equal(twice.contexts, torch.cat([blank.contexts[:, :, :77], pictures[1]], dim=2))
    assert torch.equal(twice.unconditional, blank.unconditional)


def test_a_model_without_pictures_gets_text_alone():
    model = instantiate_from_config(read_config(ROOT / "configs/inference_t2v_tiny.yaml")["model"]).eval()
    assert Conditioning.of_text(model, CAT, fps=8).contexts.shape == (1, 1, 77, 64)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance(visual_model, scale):
    torch.manual_seed(0)
    x, timesteps = torch.randn(2, 4, 4, 8, 12), torch.randint(0, 1000, (2, 4))
    conditioning = Conditioning.of_text(visual_model, CAT, fps=8)
    conditioning = conditioning.with_picture(EncodedPicture.of(visual_model, torch.ones(1, 3, 64, 96)))

    def alone(context: torch.Tensor) -> torch.Tensor:
        fps = conditioning.fps.expand(2)
        return visual_model.unet(x, timesteps, context.expand(2, -1, -1, -1), fps)

    with_condition, without = alone(conditioning.contexts), alone(conditioning.unconditional)
    assert (with_condition - without).abs().max() > 1e-3
    guided = GuidedDenoiser(visual_model.unet, conditioning, scale)(x, timesteps, torch.arange(4).expand(2, -1))
    torch.testing.assert_close(guided, without + scale * (with_condition - without), atol=1e-4, rtol=1e-4)


def text_of(model: LatentDiffusion, text: str) -> torch.Tensor:
    return model.encode_text([text])[0, 0]


def test_a_schedule_switches_at_that_very_frame(visual_model):
    schedule = [(0, "a cat"), (5, "a dog"), (9, "a cow")]
    conditioning = Conditioning.of_text(visual_model, schedule, fps=8)
    picture = visual_model.encode_pictures(torch.ones(1, 3, 64, 96))
    frames = torch.tensor([[-3, 0, 4, 5], [8, 9, 10, 1000]])
    contexts = conditioning.with_picture(EncodedPicture(picture)).at(frames)
    texts = [["a cat", "a cat", "a cat", "a dog"], ["a dog", "a cow", "a cow", "a cow"]]
    for row, names in zip(contexts, texts, strict=True):
        for context, name in zip(row, names, strict=True):
            torch.testing.assert_close(context[:77], text_of(visual_model, name))
            assert torch.equal(context[77:], picture[0, 0])


def test_overlapping_windows_of_a_schedule_raise_no_warning(visual_model):
    conditioning = Conditioning.of_text(visual_model, [(0, "a cat"), (5, "a dog")], fps=8)
    windows = torch.arange(10).unfold(0, 4, 2)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            contexts = conditioning.at(windows)
    finally:
        torch.set_warn_always(False)
    assert torch.equal(contexts, conditioning.at(windows.clone()))


def test_blending_goes_evenly_from_one_prompt_to_the_next(visual_model):
    conditioning = Conditioning.of_text(visual_model, [(0, "a cat"), (4, "a dog")], fps=8, blend=3)
    cat, dog = text_of(visual_model, "a cat"), text_of(visual_model, "a dog")
    contexts = conditioning.at(torch.tensor([[0, 3, 4, 5, 6, 7, 8]]))[0, :, :77]
    for context, share in zip(contexts, (0, 0, 0.25, 0.5, 0.75, 1, 1), strict=True):
        torch.testing.assert_close(context, (1 - share) * cat + share * dog)


def test_frames_of_a_schedule_are_conditioned_one_by_one(visual_model):
    """A schedule whose prompts are all the same is that prompt, and a frame's prompt is felt."""
    torch.manual_seed(0)
    x, timesteps, frames = torch.randn(1, 4, 4, 8, 12), torch.randint(0, 1000, (1, 4)), torch.arange(4)[None]

    def denoised(*schedule: tuple[int, str]) -> torch.Tensor:
        conditioning = Conditioning.of_text(visual_model, schedule, fps=8)
        return GuidedDenoiser(visual_model.unet, conditioning, 3.0)(x, timesteps, frames)

    torch.testing.assert_close(denoised((0, "a cat"), (2, "a cat")), denoised((0, "a cat")), atol=1e-4, rtol=1e-4)
    assert (denoised((0, "a cat"), (2, "a dog")) - denoised((0, "a cat"))).abs().max() > 1e-3


def test_guidance_leads_away_from_the_negative_prompt(visual_model):
    conditioning = Conditioning.of_text(visual_model, CAT, fps=8, negative="a dog")
    assert torch.equal(conditioning.unconditional, Conditioning.of_text(visual_model, DOG, fps=8).contexts)


def test_each_position_in_a_window_has_image_tokens_of_its_own():
    """Also while the prompt changes, and in windows that are shorter than there are positions."""
    text, tokens = torch.randn(2, 1, 77, 8), torch.randn(1, 6, 4, 8)
    starts = torch.tensor([0, 3])
    both = Conditioning(dealt_out(text, tokens), starts, 0, dealt_out(text[:1], tokens), torch.tensor([8]))
    one = Conditioning(dealt_out(text[:1], tokens), starts[:1], 0, both.unconditional, both.fps)
    frames = torch.tensor([[0, 1, 2, 3], [2, 3, 4, 5]])
    for conditioning in (one, both):
        context = conditioning.at(frames)
        assert context.shape == (2, 4, 81, 8)
        for row, position in product(range(2), range(4)):
            late = conditioning is both and frames[row, position] >= 3
            assert torch.equal(context[row, position, :77], text[int(late), 0])
            assert torch.equal(context[row, position, 77:], tokens[0, position])


def test_a_latent_stands_beside_every_frame_or_beside_its_own():
    x, latent = torch.randn(2, 4, 6, 2, 3), torch.randn(1, 4, 1, 2, 3)
    picture = EncodedPicture(torch.randn(1, 6, 4, 8), latent)
    conditioning = Conditioning(torch.randn(1, 6, 81, 8), torch.zeros(1), 0, torch.randn(1, 6, 81, 8), torch.ones(1))
    assert conditioning.beside(x) is x
    beside = conditioning.with_picture(picture).beside(x)
    assert torch.equal(beside, torch.cat([x, latent.expand(2, -1, 6, -1, -1)], dim=1))
    between = conditioning.with_picture(picture.ending_with(2 * latent, frames=6)).beside(x)[:, 4:]
    assert torch.equal(between[1, :, 0], latent[0, :, 0])
    assert torch.equal(between[1, :, 5], 2 * latent[0, :, 0])
    assert not between[:, :, 1:5].any()
