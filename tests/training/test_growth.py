"""An autoencoder of half the size is taken over into one with a finer level."""

import pytest
import torch

from lvdm.models.autoencoder import AutoencoderKL
from lvdm.training.growth import grown_weights


def autoencoder(ch: int, ch_mult: list[int]) -> AutoencoderKL:
    shape = {"ch": ch, "ch_mult": ch_mult, "num_res_blocks": 1, "z_channels": 4, "norm_num_groups": 1}
    return AutoencoderKL(shape, embed_dim=4)


def test_levels_move_up_by_one():
    small, large = autoencoder(8, [1, 2, 2]).state_dict(), autoencoder(4, [1, 2, 4, 4]).state_dict()
    weights = grown_weights(small, large)
    assert {name: weight.shape for name, weight in weights.items()} == {name: w.shape for name, w in large.items()}
    autoencoder(4, [1, 2, 4, 4]).load_state_dict(weights)
    for name, source in {
        "encoder.down.2.block.0.conv1.weight": "encoder.down.1.block.0.conv1.weight",
        "encoder.down.1.downsample.conv.weight": "encoder.down.0.downsample.conv.weight",
        "decoder.up.3.upsample.conv.weight": "decoder.up.2.upsample.conv.weight",
        "decoder.up.1.block.0.conv1.weight": "decoder.up.0.block.0.conv1.weight",
        "encoder.mid.attn_1.q.weight": "encoder.mid.attn_1.q.weight",
        "quant_conv.weight": "quant_conv.weight",
    }.items():
        assert torch.equal(weights[name], small[source])
    for name in ("encoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight", "decoder.up.1.upsample.conv.weight"):
        assert torch.equal(weights[name], large[name])


def test_autoencoders_of_another_kind_do_not_grow():
    small, large = autoencoder(6, [1, 2, 2]).state_dict(), autoencoder(4, [1, 2, 4, 4]).state_dict()
    with pytest.raises(ValueError, match=r"init_from: only \d+ of its \d+ weights fit the model's autoencoder"):
        grown_weights(small, large)
