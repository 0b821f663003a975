"""The OpenCLIP towers and the Resampler against the originals."""

import pytest
import torch
from helpers import assert_agrees, golden, golden_json, with_golden_weights

from lvdm.modules.encoders.condition import FrozenOpenCLIPEmbedder, FrozenOpenCLIPImageEmbedderV2, preprocess
from lvdm.modules.encoders.resampler import Resampler


@pytest.fixture(scope="module")
def embedder() -> FrozenOpenCLIPEmbedder:
    module = FrozenOpenCLIPEmbedder(arch=golden_json("openclip_small.json"), layer="penultimate")
    return with_golden_weights(module, "cond_stage_model.")


def test_text_features(embedder):
    vectors = golden("openclip.npz")
    assert_agrees(embedder([str(text) for text in vectors["texts"]]), vectors["text_features"])
    assert_agrees(embedder.encode_tokens(vectors["tokens"]), vectors["text_features"])


def test_last_layer_is_another_one(embedder):
    vectors = golden("openclip.npz")
    last = with_golden_weights(FrozenOpenCLIPEmbedder(arch=golden_json("openclip_small.json")), "cond_stage_model.")
    difference = (last.encode_tokens(vectors["tokens"]) - vectors["text_features"]).abs().max()
    assert difference > 0.1


def test_later_words_do_not_change_earlier_tokens(embedder):
    short, long = embedder(["a red circle", "a red circle spinning"])
    torch.testing.assert_close(short[:4], long[:4])  # start, a, red, circle
    assert (short[4] - long[4]).abs().max() > 0.1


@pytest.mark.parametrize("word", ["red", "!"])  # the token of "!" is 0, as is what fills short texts up
def test_what_is_cut_is_counted(embedder, word):
    texts = [" ".join([word] * count) for count in (75, 80)]
    assert [embedder.unread(text) for text in ["", *texts]] == [0, 0, 5]
    assert torch.equal(*embedder(texts))


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="'ViT-Q'.*ViT-H-14"):
        FrozenOpenCLIPEmbedder(arch="ViT-Q")
    with pytest.raises(ValueError, match="'first'.*penultimate"):
        FrozenOpenCLIPEmbedder(arch=golden_json("openclip_small.json"), layer="first")


@pytest.fixture(scope="module")
def image_embedder() -> FrozenOpenCLIPImageEmbedderV2:
    module = FrozenOpenCLIPImageEmbedderV2(arch=golden_json("openclip_small.json"))
    return with_golden_weights(module, "embedder.")


def test_image_features(image_embedder):
    vectors = golden("openclip.npz")
    picture = vectors["image_uint8"].float() / 127.5 - 1
    assert_agrees(image_embedder(picture), vectors["image_features"])


def test_preprocessed_pictures():
    vectors = golden("openclip.npz")
    ours = preprocess(vectors["image_uint8"].float() / 127.5 - 1, 224, 224)
    assert_agrees(ours, vectors["preprocessed"].float(), 1e-3)  # stored in half precision


@pytest.mark.parametrize("size", [(1080, 1920), (64, 96), (200, 500)])
def test_preprocessed_pictures_of_any_size(size):
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in size), indexing="ij")
    waves = [torch.sin(2 * torch.pi * (y * (c + 1) / 37 + x * (c + 2) / 53)) for c in range(3)]
    picture = torch.round(127.5 + 100 * torch.stack(waves)).float()[None] / 127.5 - 1
    theirs = golden("openclip_preprocess.npz")["preprocessed_{}x{}".format(*size)]
    assert_agrees(preprocess(picture, 224, 224)[0, :, ::4, ::4], theirs)


def test_resampler():
    vectors = golden("unet_i2v.npz")
    resampler = with_golden_weights(
        Resampler(**golden_json("small_i2v.json")["image_proj_model_params"]), "image_proj_model."
    )
    assert_agrees(resampler(vectors["image_encoder_tokens"]), vectors["image_tokens"])


def test_pictures_of_a_batch_do_not_see_each_other(image_embedder):
    torch.manual_seed(0)
    pictures = 2 * torch.rand(2, 3, 64, 96) - 1
    torch.testing.assert_close(image_embedder(pictures)[1:], image_embedder(pictures[1:]))
