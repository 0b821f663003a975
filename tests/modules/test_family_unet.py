"""DynamiCrafter's and T2V-Turbo's networks against the originals' outputs."""

import pytest
import torch
from helpers import assert_agrees, family, family_json, with_golden_weights

from lvdm.diffusion.conditioning import dealt_out
from lvdm.modules.encoders.resampler import Resampler
from lvdm.modules.layers import guidance_sinusoid
from lvdm.modules.networks.openaimodel3d import UNetModel


def unet_of(vectors: dict) -> UNetModel:
    params = family_json(str(vectors["config"]))["unet_config"]["params"]
    unet = with_golden_weights(UNetModel(**params), "model.diffusion_model.")
    return unet


def each_frame(vectors: dict) -> torch.Tensor:
    return vectors["timestep"][:, None].expand(-1, vectors["x"].shape[2])


@pytest.mark.parametrize("size", ["256", "512"])
def test_dynamicrafter(size):
    vectors = family(f"dynamicrafter_{size}_unet.npz")
    unet = unet_of(vectors)
    x = torch.cat([vectors["x"], vectors["concat"]], dim=1)
    dealt = dealt_out(vectors["text"][:, None], vectors["image"].unflatten(1, (16, 16)))
    clip = each_frame(vectors)
    outputs = {
        "output": unet(x, clip, dealt, vectors["fs"]),
        "output_frames": unet(x, vectors["frame_timesteps"], dealt, vectors["fs"]),
        "output_shared": unet(
            x, clip, dealt_out(vectors["text"][:, None], vectors["image_shared"][:, None]), vectors["fs"]
        ),
        "output_text_only": unet(x, clip, vectors["text"][:, None], vectors["fs"]),
    }
    if "output_alpha" in vectors:
        for name, parameter in unet.named_parameters():
            if name.endswith(".alpha"):
                parameter.data *= vectors["alpha_factor"]
        outputs["output_alpha"] = unet(x, clip, dealt, vectors["fs"])
    for name, output in outputs.items():
        assert_agrees(output, vectors[name], name=name)


def test_resampler_makes_tokens_for_each_position():
    vectors = family("dynamicrafter_resampler.npz")
    params = family_json(str(vectors["config"]))["image_proj_stage_config"]["params"]
    resampler = with_golden_weights(Resampler(**params), "image_proj_model.")
    assert resampler.groups == 16
    assert_agrees(resampler(vectors["tokens"]), vectors["image_tokens"])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_t2v_turbo(version):
    vectors = family(f"t2v_turbo_{version}_unet.npz")
    unet, x, context = unet_of(vectors), vectors["x"], vectors["text"][:, None]
    clip, frames = each_frame(vectors), vectors["frame_timesteps"]
    fps, w = vectors["fps"].reshape(1), vectors["w"]
    assert torch.equal(guidance_sinusoid(w, 256), vectors["w_embedding"])
    if version == "v1":
        outputs = {
            "output": unet(x, clip, context, fps, w),
            "output_frames": unet(x, frames, context, fps, w),
            "output_no_w": unet(x, clip, context, fps),
        }
    else:
        motion = vectors["motion_gs"][:, None].expand(-1, 16)
        outputs = {
            "output": unet(x, clip, context, fps, w, motion),
            "output_frames": unet(x, frames, context, fps, w, motion),
            "output_motion_0": unet(x, clip, context, fps, w, 0 * motion),
            "output_no_motion": unet(x, clip, context, fps, w),
        }
    for name, output in outputs.items():
        assert_agrees(output, vectors[name], 5e-6, name=name)  # 0 of motion is 1e-3 away from none


def test_guidance_is_embedded_in_fp32_whatever_comes_in():
    vectors = family("t2v_turbo_schedule.npz")
    assert torch.equal(guidance_sinusoid(vectors["w"], 256), vectors["w_embeddings"])
    half = torch.tensor([7.5], dtype=torch.bfloat16)
    assert torch.equal(guidance_sinusoid(half, 256), vectors["w_embeddings"][:1])
