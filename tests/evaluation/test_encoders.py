"""The encoders of the evaluation give the same features as open_clip and the model."""

import json

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from helpers import DATA, ROOT, golden_json, with_golden_weights
from safetensors.torch import save_file

from lvdm.evaluation.encoders import model_encoders, open_clip_encoder
from lvdm.io.configs import read_config
from lvdm.models.loading import load_network
from lvdm.modules.encoders.condition import clip_model

ARCH = DATA / "golden" / "openclip_small.json"
CPU = torch.device("cpu")
FRAMES = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8) for seed in range(3)]


@pytest.fixture(scope="module")
def clip():
    return with_golden_weights(clip_model(golden_json(ARCH.name)), "")


@pytest.fixture(scope="module")
def weights(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "open_clip.safetensors"
    save_file(dict(clip.state_dict()), path)
    return path


def test_frames_are_prepared_for_clip_as_in_vbench(clip, weights):
    ours, patches = open_clip_encoder(weights, str(ARCH), device=CPU).encode_frames(FRAMES)
    x = torch.from_numpy(np.stack(FRAMES)).permute(0, 3, 1, 2).float()
    x = F.interpolate(x, (224, 336), mode="bicubic", align_corners=False).clamp(0, 255).round()[..., 56:-56] / 255
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    theirs = clip.encode_image((x - mean) / deviation, normalize=True)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # their rounding of a half may be another
    assert patches.shape == (3, 80)
    np.testing.assert_allclose(np.linalg.norm(patches, axis=1), 1, rtol=1e-5)
    assert np.abs(ours[0] - ours[1]).max() > 0.02


def test_prompts_are_encoded_as_by_open_clip(clip, weights):
    encoder = open_clip_encoder(weights, str(ARCH), device=CPU)
    for prompt in ("a red circle", "word " * 200):
        theirs = clip.encode_text(open_clip.tokenize([prompt]), normalize=True)[0]
        np.testing.assert_allclose(encoder.encode_prompt(prompt), theirs, atol=1e-5)
    assert "openclip_small" in encoder.name
    assert encoder.why_no_text == ""


def test_clip_is_loaded_from_the_checkpoint_of_an_image_to_video_model(clip, weights, tmp_path):
    parts = {True: "embedder.model.", False: "cond_stage_model.model."}
    state = {parts[name.startswith("visual.")] + name: tensor for name, tensor in clip.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    bare, inside = (open_clip_encoder(path, str(ARCH), device=CPU) for path in (weights, tmp_path / "model.ckpt"))
    np.testing.assert_array_equal(bare.encode_frames(FRAMES)[0], inside.encode_frames(FRAMES)[0])
    np.testing.assert_array_equal(bare.encode_prompt("a star"), inside.encode_prompt("a star"))


def test_the_encoders_of_an_image_to_video_model_are_its_vae_and_clip(visual_model):
    config = visual_model[1]
    ckpt = read_config(config)["inference"]["ckpt_path"]
    latents, clip = model_encoders(config, ckpt, device=CPU)
    model = load_network(config, ckpt, device=CPU)
    x = torch.from_numpy(np.stack(FRAMES)).permute(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(latents.encode_frames(FRAMES), F.normalize(model.encode(x).flatten(1), dim=1), atol=1e-5)
    assert clip.encode_frames(FRAMES)[0].shape == (3, 64)
    assert clip.text is None  # the tiny model's text tower is of another CLIP
    assert "no text tower" in clip.why_no_text


def test_a_text_to_video_model_has_no_clip_and_odd_frames_are_cut_for_its_vae():
    config = ROOT / "configs/inference_t2v_tiny.yaml"
    latents, clip = model_encoders(config, ROOT / "videocrafter_models/tiny_t2v/model.ckpt", device=CPU)
    assert clip is None
    cut = [frame[:61, :90] for frame in FRAMES]  # sides that the VAE cannot take are cut
    even = [frame[:56, :88] for frame in FRAMES]
    np.testing.assert_array_equal(latents.encode_frames(cut), latents.encode_frames(even))


def test_weights_that_do_not_fit_are_an_error_that_names_the_flag(weights, tmp_path):
    with pytest.raises(FileNotFoundError, match="--clip_weights 'none.pt'"):
        open_clip_encoder(tmp_path.relative_to(tmp_path) / "none.pt", "ViT-B-32", device=CPU)
    with pytest.raises(ValueError, match="does not fit --clip_arch 'ViT-B-32'.*missing"):
        open_clip_encoder(weights, "ViT-B-32", device=CPU)
    with pytest.raises(ValueError, match="--clip_arch 'ViT-Q'.*ViT-H-14"):
        open_clip_encoder(weights, "ViT-Q", device=CPU)
    (tmp_path / "arch.json").write_text(json.dumps({"model_cfg": {"embed_dim": 64}}))
    with pytest.raises(ValueError, match="does not fit --clip_arch"):
        open_clip_encoder(weights, str(tmp_path / "arch.json"), device=CPU)
    (tmp_path / "notes.pt").write_text("notes")
    with pytest.raises(ValueError, match="--clip_weights .*weights cannot be read"):
        open_clip_encoder(tmp_path / "notes.pt", "ViT-B-32", device=CPU)
