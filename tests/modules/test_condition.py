"""The OpenCLIP text tower against the originals."""

import pytest
import torch
from conftest import assert_agrees, golden, golden_json, with_golden_weights

from lvdm.modules.encoders.condition import FrozenOpenCLIPEmbedder


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


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="'ViT-Q'.*ViT-H-14"):
        FrozenOpenCLIPEmbedder(arch="ViT-Q")
    with pytest.raises(ValueError, match="'first'.*penultimate"):
        FrozenOpenCLIPEmbedder(arch=golden_json("openclip_small.json"), layer="first")
