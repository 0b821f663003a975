"""Noise by key: the same for the same key, another for any other, and Gaussian."""

from dataclasses import replace

import torch

from lvdm.diffusion.noise import KeyedNoise

NOISE = KeyedNoise(1, "a cat", 0, (4, 8, 12), torch.device("cpu"))


def test_a_frame_has_the_same_noise_in_any_company():
    together = NOISE.draw("step", range(5), range(10, 15))
    assert together.shape == (1, 4, 5, 8, 12)
    assert torch.equal(NOISE.draw("step", [3], [13]), together[:, :, 3:4])
    assert torch.equal(NOISE.draw("step", [4, 0], [14, 10]), together[:, :, [4, 0]])


def test_every_part_of_the_key_matters():
    plain = NOISE.draw("step", [3], [13])
    others = [
        replace(NOISE, seed=2).draw("step", [3], [13]),
        replace(NOISE, prompt="a dog").draw("step", [3], [13]),
        replace(NOISE, repetition=1).draw("step", [3], [13]),
        NOISE.draw("base", [3], [13]),
        NOISE.draw("step", [-3], [13]),
        NOISE.draw("step", [3], [14]),
    ]
    assert all(not torch.equal(other, plain) for other in others)
    correlations = [torch.corrcoef(torch.stack([plain.flatten(), other.flatten()]))[0, 1] for other in others]
    assert max(map(abs, correlations)) < 0.2


def test_noise_does_not_touch_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    NOISE.draw("step", range(3), range(3))
    assert torch.equal(torch.rand(1), expected)


def test_noise_is_standard_normal():
    drawn = NOISE.draw("step", range(300), [0] * 300)
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02
