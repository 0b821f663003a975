"""The KL autoencoder against the originals."""

import torch
from helpers import assert_agrees, golden, golden_json, with_golden_weights

from lvdm.models.autoencoder import AutoencoderKL, DiagonalGaussian


def frames_of(clip: torch.Tensor) -> torch.Tensor:
    """(1, C, T, H, W) -> (T, C, H, W)."""
    return clip[0].transpose(0, 1)


def small_autoencoder() -> AutoencoderKL:
    params = golden_json("small_t2v.json")["first_stage_config"]["params"]
    return with_golden_weights(AutoencoderKL(**params), "first_stage_model.")


def test_decoder():
    vectors = golden("vae.npz")
    decoded = small_autoencoder().decode(frames_of(vectors["latents"]) / vectors["scale_factor"])
    assert_agrees(decoded, frames_of(vectors["decoded"]))


def test_encoder():
    vectors = golden("vae.npz")
    posterior = small_autoencoder().encode(frames_of(vectors["image"]))
    assert_agrees(posterior.mean, frames_of(vectors["encoded_mean"]))
    assert_agrees(posterior.std, frames_of(vectors["encoded_std"]))
    assert_agrees(posterior.mean * vectors["scale_factor"], frames_of(vectors["encoded_mode"]))


def test_norms_have_the_originals_epsilon():
    norms = [module for module in small_autoencoder().modules() if isinstance(module, torch.nn.GroupNorm)]
    assert norms
    assert {norm.eps for norm in norms} == {1e-6}


def test_log_variance_is_clamped():
    moments = torch.tensor([0.0, 1000.0]).reshape(1, 2, 1, 1), torch.tensor([0.0, -1000.0]).reshape(1, 2, 1, 1)
    assert [DiagonalGaussian.from_moments(m).logvar.item() for m in moments] == [20.0, -30.0]
