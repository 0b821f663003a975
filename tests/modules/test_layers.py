"""Small things that every network is made of."""

import pytest
import torch
import torch.nn.functional as F

from lvdm.modules.layers import GroupNorm


@pytest.mark.parametrize("shape", [(3, 32, 16, 24), (5, 48, 8, 12), (2, 32, 16, 96), (2, 64, 24), (4, 512, 4, 6)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.03)])
def test_group_norm(shape, dtype, tolerance):
    """By either way, in every layout, of features that are far from 0, it is the published one (Wu and He 2018)."""
    torch.manual_seed(0)
    norm = GroupNorm(16, shape[1]).to(dtype)
    for weight in norm.parameters():
        weight.normal_()
    x = (2 * torch.randn(shape) + 5).to(dtype)
    expected = F.group_norm(x.double(), 16, norm.weight.double(), norm.bias.double(), norm.eps)
    for features in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
        out = norm(features)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
