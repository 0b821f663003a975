"""The U-Net against the originals' outputs, and what no vector covers."""

import pytest
import torch
from helpers import assert_agrees, golden, golden_json, with_golden_weights
from torch.utils.flop_counter import FlopCounterMode

from lvdm.modules import attention
from lvdm.modules.networks.openaimodel3d import UNetModel
from lvdm.sampling.taps.query_reuse import QueryReuse, block_pairs, reuse_queries


def small_unet(name: str = "small_t2v.json", **changes) -> UNetModel:
    params = golden_json(name)["unet_config"]["params"] | changes
    return with_golden_weights(UNetModel(**params), "model.diffusion_model.")


def test_a_batch_that_is_too_long_for_a_kernel_is_cut(monkeypatch):
    q, k, v = torch.randn(3, 7, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    plain = attention.attend(q, k, v)
    monkeypatch.setattr(attention, "SHORT", 0)
    monkeypatch.setattr(attention, "LONGEST_BATCH", 3)
    torch.testing.assert_close(attention.attend(q, k, v), plain)


@pytest.fixture(scope="module")
def t2v() -> tuple[UNetModel, dict]:
    return small_unet(), golden("unet_t2v.npz")


def timesteps_of(vectors: dict, kind: str) -> torch.Tensor:
    frames = vectors["x"].shape[2]
    return (
        vectors["timestep_frames"][None] if kind == "frames" else vectors["timestep_clip"][:, None].expand(-1, frames)
    )


@pytest.mark.parametrize("kind", ["clip", "frames"])
def test_plain(t2v, kind):
    unet, vectors = t2v
    out = unet(vectors["x"], timesteps_of(vectors, kind), vectors["context"][:, None], vectors["fps"])
    assert_agrees(out, vectors[f"out_{kind}_plain"])


@pytest.mark.parametrize("percent", [100, 90])
@pytest.mark.parametrize("attention", ["attn1", "attn2"])
@pytest.mark.parametrize("transformer", ["TT", "ST"])
def test_query_reuse(t2v, transformer, attention, percent):
    unet, vectors = t2v
    timesteps = timesteps_of(vectors, "frames")
    with reuse_queries(unet, QueryReuse(transformer, attention, percent / 100)):
        out = unet(vectors["x"], timesteps, vectors["context"][:, None], vectors["fps"])
    assert_agrees(out, vectors[f"out_frames_{transformer}qcache_{attention}_w{percent}"])
    out = unet(vectors["x"], timesteps, vectors["context"][:, None], vectors["fps"])
    assert_agrees(out, vectors["out_frames_plain"])  # nothing stays behind


@pytest.mark.parametrize("percent", [100, 90])
def test_query_reuse_with_one_timestep(t2v, percent):
    unet, vectors = t2v
    with reuse_queries(unet, QueryReuse("TT", "attn1", percent / 100)):
        out = unet(vectors["x"], timesteps_of(vectors, "clip"), vectors["context"][:, None], vectors["fps"])
    assert_agrees(out, vectors[f"out_clip_TTqcache_attn1_w{percent}"])


def test_query_reuse_pairs_blocks_as_published(t2v):
    published = [(3, 8), (4, 7), (5, 7), (6, 5), (7, 4), (8, 4), (9, 2), (10, 1), (11, 1)]
    assert block_pairs(t2v[0], "TT") == published
    assert block_pairs(t2v[0], "ST") == published
    shallow = UNetModel(4, 32, 4, 1, [1, 2], channel_mult=[1, 2], num_head_channels=16)
    assert block_pairs(shallow, "TT") == [(0, 3), (1, 3), (2, 1), (3, 1)]


def test_query_reuse_is_removed_after_an_error(t2v):
    unet, _ = t2v
    with pytest.raises(RuntimeError, match="inside"), reuse_queries(unet, QueryReuse("TT", "attn1", 0.9)):
        raise RuntimeError("inside")
    assert all(getattr(module, "query_tap", None) is None for module in unet.modules())


@pytest.mark.parametrize("rule", [None, QueryReuse("TT", "attn1", 0.9), QueryReuse("ST", "attn1", 0.9)])
def test_clips_with_several_contexts_each(t2v, rule):
    """As if every clip stood there once for each of its contexts, for less work."""
    unet, vectors = t2v
    clips = torch.cat([vectors["x"], vectors["x"].flip(2)]).contiguous(memory_format=torch.channels_last_3d)
    timesteps = torch.cat([timesteps_of(vectors, kind) for kind in ("frames", "clip")])
    fps = torch.tensor([8, 24])
    contexts = torch.randn(6, 1, *vectors["context"].shape[1:], generator=torch.Generator().manual_seed(0))
    with reuse_queries(unet, rule):
        with FlopCounterMode(display=False) as once:
            out = unet(clips, timesteps, contexts, fps)
        with FlopCounterMode(display=False) as thrice:
            expected = unet(clips.repeat(3, 1, 1, 1, 1), timesteps.repeat(3, 1), contexts, fps.repeat(3))
    assert_agrees(out, expected, 1e-5)
    assert once.get_total_flops() < 0.9 * thrice.get_total_flops()


def test_relative_position():
    vectors = golden("unet_t2v_relative_position.npz")
    unet = small_unet(use_relative_position=True, temporal_conv=False)
    out = unet(vectors["x"], timesteps_of(vectors, "clip"), vectors["context"][:, None], vectors["fps"])
    assert_agrees(out, vectors["out_clip_plain"])


def test_two_rows_in_a_batch(t2v):
    vectors = golden("unet_t2v_batch2.npz")
    timesteps, context, fps = timesteps_of(vectors, "clip"), vectors["context"][:, None], vectors["fps"]
    out = t2v[0](vectors["x"][:, :, :16], timesteps[:, :16], context, fps)
    assert_agrees(out, vectors["out_plain_16_frames"])
    relative = small_unet(use_relative_position=True, temporal_conv=False)
    assert_agrees(relative(vectors["x"], timesteps, context, fps), vectors["out_relative_position_24_frames"])


def test_relative_position_with_a_timestep_per_frame_is_the_same_in_any_batch():
    unet = small_unet(use_relative_position=True, temporal_conv=False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 16, 8, 8, generator=generator)
    timesteps = torch.randint(1000, (3, 16), generator=generator)
    context, fps = torch.randn(3, 1, 77, 64, generator=generator), torch.tensor([8, 16, 24])
    together = unet(x, timesteps, context, fps)
    alone = torch.cat([unet(x[i : i + 1], timesteps[i : i + 1], context[i : i + 1], fps[i : i + 1]) for i in range(3)])
    assert_agrees(together, alone)


def test_context_per_frame(t2v):
    """The same context for every frame is the clip's context; another one for the last frame is felt."""
    unet, vectors = t2v
    timesteps, context = timesteps_of(vectors, "frames"), vectors["context"][:, None]
    per_frame = context.repeat(1, 16, 1, 1)
    assert_agrees(unet(vectors["x"], timesteps, per_frame, vectors["fps"]), vectors["out_frames_plain"])
    per_frame[:, -1] += 1
    changed = unet(vectors["x"], timesteps, per_frame, vectors["fps"])
    assert (changed - vectors["out_frames_plain"]).abs().max() > 1e-3


def test_image_tokens():
    vectors = golden("unet_i2v.npz")
    unet = small_unet("small_i2v.json")
    both = torch.cat([vectors["text_tokens"], vectors["image_tokens"]], dim=1)[:, None]
    frames, clip = timesteps_of(vectors, "frames"), timesteps_of(vectors, "clip")
    assert_agrees(unet(vectors["x"], frames, both, vectors["fps"]), vectors["out_frames_plain"])
    assert_agrees(unet(vectors["x"], clip, both, vectors["fps"]), vectors["out_clip_plain"])
    text_only = unet(vectors["x"], frames, vectors["text_tokens"][:, None], vectors["fps"])
    assert_agrees(text_only, vectors["out_frames_plain_text_only"])
    with reuse_queries(unet, QueryReuse("TT", "attn1", 0.9)):
        assert_agrees(unet(vectors["x"], frames, both, vectors["fps"]), vectors["out_frames_TTqcache_attn1_w90"])


def test_norms_have_the_originals_epsilon(t2v):
    """A swap of 1e-5 and 1e-6 hides below every tolerance, so the values are looked at."""
    for name, module in t2v[0].named_modules():
        if isinstance(module, torch.nn.GroupNorm):
            inside_transformer = name.split(".")[-1] == "norm"
            assert module.eps == (1e-6 if inside_transformer else 1e-5), name
