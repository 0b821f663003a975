"""Frames in between: what a window is made of, what the network is told, and what of it is felt in a video."""

import numpy as np
import pytest
import torch
from helpers import RED, command, png_frames, prompt_file
from queues import ACP, CPU

from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import NoiseSchedule, fifo_spacing
from lvdm.pipeline.interpolate import interpolated
from lvdm.pipeline.snapshot import Pass
from lvdm.sampling.plan import fifo
from lvdm.sampling.queue import LatentQueue

NOISE = KeyedNoise(0, "", 0, (1, 1, 2), CPU)


class FakeRun:
    """What interpolation asks of a run: two settings, and the noise levels of a clip."""

    def __init__(self, window: int, every: int):
        self.options = type("Options", (), {"video_length": window, "interpolate": every})

    def clip_schedule(self) -> NoiseSchedule:
        return NoiseSchedule.from_tables(ACP, fifo_spacing(4), eta=1.0)


@pytest.mark.parametrize("parts", [[10], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [3, 0, 4, 3]])
def test_windows_hold_given_frames_and_the_last_moves_back(parts):
    """With every 2nd of 8 frames given: 3 gaps a window, of 10 in all; the last is behind frames that are there."""
    given = NOISE.draw("given", range(11), [0] * 11)
    calls = []

    def denoiser(tokens):
        def denoise(x, timesteps, numbers):
            calls.append((timesteps[0].tolist(), numbers[0].tolist(), x.clone()))
            return torch.zeros_like(x)

        return denoise

    queue = LatentQueue.of_noise(fifo(8, 8, lookahead=False), noise=NOISE)
    ends = np.cumsum([*parts, 1]).tolist()
    passes = [
        Pass(queue, given[:, :, end - part : end], None, None, given[:, :, :0], end, complete=end == 11)
        for part, end in zip([*parts, 1], ends, strict=True)
    ]
    made = [*interpolated(FakeRun(8, 2), iter(passes), None, denoiser=denoiser, noise=NOISE)]
    frames = torch.cat([after.finished for after in made], dim=2)
    assert frames.shape[2] == 10 * 2 + 1
    assert torch.equal(frames[:, :, ::2], given)
    assert len({frame.tobytes() for frame in frames[0, 0, 1::2].numpy()}) == 10  # noise of its own for each
    assert made[-1].complete
    assert not any(after.complete for after in made[:-1])
    numbers = [call[1] for call in calls[::3]]  # 4 levels, the last of which takes no forward
    assert numbers == [[0, 0, 1, 1, 2, 2, 3], [3, 3, 4, 4, 5, 5, 6], [6, 6, 7, 7, 8, 8, 9], [7, 7, 8, 8, 9, 9, 10]]
    assert calls[0][0] == [0, 999, 0, 999, 0, 999, 0]
    assert calls[9][0] == [0, 0, 0, 0, 0, 999, 0]  # the last gap, behind frames that were there
    assert torch.equal(calls[9][2][0, :, :5], frames[0, :, 14:19])


def in_between(folder, name: str) -> np.ndarray:
    return png_frames(folder, f"*/{name}/fifo/*.png")[1::2]


def test_modes_are_felt_between_frames(tmp_path, visual_model):
    """A Q-cache, seeded pictures and noisy context change frames in between whose neighbours are the same."""
    flags = [*visual_model, "-p", prompt_file(tmp_path, RED), "--output_dir"]
    assert command(*flags, tmp_path / "source", "-l", 3) == 0
    source = next((tmp_path / "source").glob("*/t2v/fifo"))
    flags = [*flags, tmp_path, "--continue_from", source, "-l", 0, "--interpolate", 2]
    for name, more in {
        "plain": [],
        "again": [],
        "qcache": ["-m", "t2v_TTqcache_weighted50"],
        "seed": ["-m", "t2v_seed"],
        "context": ["--context_level", 100],
        "fps": ["--fps", 9],
        "spacing": ["--base_spacing", "videocrafter"],
    }.items():
        assert command(*flags, *more, "-ex", name) == 0
    plain = in_between(tmp_path, "plain")
    assert np.array_equal(in_between(tmp_path, "again"), plain)
    for name in ("qcache", "seed", "context", "fps", "spacing"):
        assert not np.array_equal(in_between(tmp_path, name), plain), name


def test_a_stop_between_windows_keeps_their_picture(tmp_path, visual_model, monkeypatch):
    """Where each frame becomes the picture of later ones, and the queue is written: the same files after every stop."""
    from test_plans import stopped_after

    flags = [*visual_model, "-p", prompt_file(tmp_path, RED), "-m", "t2v_seed_ar", "--interpolate", 2, "-l", 5]
    flags += ["--save_queue", "--plan", "plateau:2", "--output_dir"]
    assert command(*flags, tmp_path / "straight") == 0
    statuses = []
    while 0 not in statuses:
        with stopped_after(monkeypatch, 4):
            statuses.append(command(*flags, tmp_path / "stopped"))
    assert statuses.count(143) > 0
    for pattern in ("*/*/fifo/*.png", "*/*/queue/*.png"):
        assert np.array_equal(png_frames(tmp_path / "stopped", pattern), png_frames(tmp_path / "straight", pattern))
