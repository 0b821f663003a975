"""Contexts of text and picture, and guidance."""

import pytest
import torch
from conftest import ROOT, with_golden_weights

from lvdm.config import instantiate_from_config, read_config
from lvdm.fifo.conditioning import Conditioning, GuidedDenoiser
from lvdm.models.ddpm3d import LatentDiffusion


@pytest.fixture(scope="module")
def visual_model() -> LatentDiffusion:
    return with_golden_weights(
        instantiate_from_config(read_config(ROOT / "configs/inference_i2v_tiny.yaml")["model"]), ""
    )


def test_without_a_picture_both_halves_have_the_blank_one(visual_model):
    conditioning = Conditioning.of_text(visual_model, "a cat", fps=8)
    blank = visual_model.encode_pictures(torch.zeros(1, 3, 64, 96))
    assert conditioning.context.shape == conditioning.unconditional.shape == (1, 1, 77 + 16, 64)
    for half, text in ((conditioning.context, "a cat"), (conditioning.unconditional, "")):
        torch.testing.assert_close(half[:, :, 77:], blank)
        torch.testing.assert_close(half[:, :, :77], visual_model.encode_text([text]))


def test_a_picture_takes_the_place_of_the_one_before(visual_model):
    torch.manual_seed(0)
    blank = Conditioning.of_text(visual_model, "a cat", fps=8)
    pictures = [visual_model.encode_pictures(2 * torch.rand(1, 3, 64, 96) - 1) for _ in range(2)]
    twice = blank.with_picture(pictures[0]).with_picture(pictures[1])
    assert torch.equal(twice.context, torch.cat([blank.context[:, :, :77], pictures[1]], dim=2))
    assert torch.equal(twice.unconditional, blank.unconditional)


def test_a_model_without_pictures_gets_text_alone():
    model = instantiate_from_config(read_config(ROOT / "configs/inference_t2v_tiny.yaml")["model"]).eval()
    assert Conditioning.of_text(model, "a cat", fps=8).context.shape == (1, 1, 77, 64)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance(visual_model, scale):
    torch.manual_seed(0)
    x, timesteps = torch.randn(2, 4, 4, 8, 12), torch.randint(0, 1000, (2, 4))
    conditioning = Conditioning.of_text(visual_model, "a cat", fps=8)
    conditioning = conditioning.with_picture(visual_model.encode_pictures(torch.ones(1, 3, 64, 96)))

    def alone(context: torch.Tensor) -> torch.Tensor:
        fps = conditioning.fps.expand(2)
        return visual_model.unet(x, timesteps, context.expand(2, -1, -1, -1), fps)

    with_condition, without = alone(conditioning.context), alone(conditioning.unconditional)
    assert (with_condition - without).abs().max() > 1e-3
    guided = GuidedDenoiser(visual_model.unet, conditioning, scale)(x, timesteps)
    torch.testing.assert_close(guided, without + scale * (with_condition - without), atol=1e-4, rtol=1e-4)
