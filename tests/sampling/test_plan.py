"""Plans of noise levels: what they promise, over many random ones, and what the one loop makes of them."""

from collections import defaultdict
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from queues import ACP, CPU, Small
from torch import Tensor

from lvdm.diffusion.guidance import GuidedDenoiser
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import CLEAN, CONSISTENCY, NoiseSchedule, fifo_spacing
from lvdm.runtime.batching import Workers
from lvdm.sampling.plan import Plan, autoregressive, between, fifo, full, make_plan, plateau, pyramid
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import denoise_queue, sample_clip

NOISE = KeyedNoise(0, "", 0, (1, 1, 2), CPU)


def mixing(x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
    """Answer as a network does: with something of every frame and timestep of a window, each counting differently."""
    weights = torch.linspace(0.5, 1.5, x.shape[2])
    told = (weights * timesteps).sum(1)[:, None, None, None, None] / 1000
    return torch.tanh(x + (weights[None, None, :, None, None] * x).mean(2, keepdim=True) + told)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a plan of any kind, with any window, number of levels and lookahead."""
    half, partitions, lookahead = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.booleans())
    window = 2 * half
    divisors = [width for width in range(1, window + 1) if window % width == 0]
    text = draw(
        st.one_of(
            st.just("fifo"),
            st.just("full"),
            st.sampled_from(divisors).map("plateau:{}".format),
            st.sampled_from(divisors).map("pyramid:{}".format),
            st.sampled_from(["pyramid:1/2", "pyramid:1/3"]),
            st.integers(0, window - 1).map("autoregressive:{}".format),
        )
    )
    return make_plan(text, window=window, lookahead=lookahead, slots=window * partitions)


def schedule_of(plan: Plan, *, eta: float | str = 1.0, context_level: int = 0) -> NoiseSchedule:
    return NoiseSchedule.from_tables(ACP, fifo_spacing(plan.levels), eta=eta, context_level=context_level)


def first_queue(plan: Plan, schedule: NoiseSchedule) -> LatentQueue:
    clip = NOISE.draw("a clip", range(plan.window), [0] * plan.window)
    return LatentQueue.from_clip(clip, plan, schedule, noise=NOISE)


@settings(deadline=None)
@given(plan=plans())
def test_every_frame_goes_through_every_level_once_and_in_order(plan):
    """And a period later the queue has the same levels, and k more frames have left, each of them clean."""
    schedule = schedule_of(plan)
    first = first_queue(plan, schedule)
    seen: dict[int, list[int]] = defaultdict(list)
    levels: dict[int, list[list[int]]] = defaultdict(list)  # by row, of every period
    left = []
    periods = 3 * plan.levels // plan.steps + 3
    for after in islice(denoise_queue(mixing, schedule, first, noise=NOISE), periods * plan.steps):
        before = torch.tensor(plan.rows[after.row - 1])
        falls = after.levels < before
        for frame, level in zip(after.frames[falls].tolist(), before[falls].tolist(), strict=True):
            seen[frame].append(level)
        levels[after.row].append(after.levels.tolist())
        if after.ended:
            leaving = slice(plan.front, plan.front + plan.leaving)
            assert (after.levels[leaving] == CLEAN).all()
            left += after.frames[leaving].tolist()
    assert all(len(rows) == periods and rows.count(rows[0]) == periods for rows in levels.values())
    assert left == list(range(left[0], left[0] + len(left)))
    came_in = [frame for frame in left if frame > int(first.frames[-1])]
    assert came_in
    for frame in came_in:
        assert seen[frame] == list(range(plan.levels - 1, CLEAN, -1))


def latents(plan: Plan, count: int) -> Tensor:
    """The first `count` frames that leave a queue of `plan` under a network that mixes frames."""
    schedule, frames = schedule_of(plan), []
    for after in denoise_queue(mixing, schedule, first_queue(plan, schedule), noise=NOISE):
        frames += after.finished.unbind(2)
        if len(frames) >= count:
            return torch.stack(frames[:count])


@pytest.mark.parametrize("lookahead", [True, False])
def test_plans_that_are_the_same_make_the_same(lookahead):
    def made(text: str, partitions: int) -> Tensor:
        return latents(make_plan(text, window=4, lookahead=lookahead, slots=4 * partitions), 6)

    torch.testing.assert_close(made("plateau:1", 3), made("fifo", 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(made("pyramid:1", 2), made("fifo", 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(made("pyramid:2", 1), made("plateau:2", 1), atol=1e-5, rtol=0)
    assert autoregressive(4, 0, 8).rows == full(4, 8).rows
    assert not torch.allclose(made("plateau:2", 3), made("fifo", 3), atol=1e-2)


def test_a_full_plan_makes_base_clips():
    """One clip after another, each as `sample_clip` would make it of the same noise."""
    plan = full(4, 8)
    schedule = schedule_of(plan)
    queue = LatentQueue.of_noise(plan, noise=NOISE)

    class OfQueue:
        def draw(self, purpose, frames, levels):
            return NOISE.draw({"base": "enqueue", "base step": "step"}[purpose], frames, levels)

    *_, clip = sample_clip(mixing, schedule, frames=4, noise=OfQueue())
    *_, after = islice(denoise_queue(mixing, schedule, queue, noise=NOISE), plan.steps)
    assert torch.equal(after.finished, clip)


@settings(deadline=None, max_examples=15)
@given(plan=plans())
def test_windows_may_be_computed_in_any_parts(plan):
    schedule = schedule_of(plan)
    small = Small.on(CPU)
    noise = KeyedNoise(0, "", 0, (4, 4, 4), CPU)
    clip = noise.draw("a clip", range(plan.window), [0] * plan.window)
    queue = LatentQueue.from_clip(clip, plan, schedule, noise=noise)

    def after(workers: Workers) -> Tensor:
        denoise = GuidedDenoiser(small.unet, small.conditioning, small.scale, workers)
        with torch.inference_mode():
            *_, last = islice(denoise_queue(denoise, schedule, queue, noise=noise), 2)
        return last.latents

    torch.testing.assert_close(after(Workers(rows=1)), after(Workers()), atol=1e-4, rtol=1e-4)


@settings(deadline=None)
@given(plan=plans(), eta=st.sampled_from([0.0, 0.5, 1.0, CONSISTENCY]), context_level=st.sampled_from([0, 20]))
def test_context_is_read_and_never_written(plan, eta, context_level):
    """In every step, a slot whose level does not fall keeps its latents to the bit; all others change."""
    schedule = schedule_of(plan, eta=eta, context_level=context_level)
    before = first_queue(plan, schedule)
    for after in islice(denoise_queue(mixing, schedule, before, noise=NOISE), 2 * plan.steps):
        row = after.row - 1
        if row == 0 and before.row:
            before = before.shift(after.latents[:, :, -plan.leaving :])
        kept = torch.tensor([a == b for a, b in zip(plan.rows[row], plan.rows[row + 1], strict=True)])
        kept[: plan.front] = True
        assert torch.equal(after.latents[:, :, kept], before.latents[:, :, kept])
        assert after.latents.isfinite().all()
        before = after


def test_what_the_network_is_told_of_clean_frames():
    """Timestep 0, or the level that --context_level says, at which they are noised for the network alone."""
    plan = autoregressive(4, 2, 8)
    told, contexts = [], []

    def network(x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
        told.append(timesteps[0].tolist())
        contexts.append(x[0, :, :2])
        return torch.zeros_like(x)

    for level in (0, 20):
        schedule = schedule_of(plan, eta=0.0, context_level=level)
        queue = first_queue(plan, schedule)
        *_, after = islice(denoise_queue(network, schedule, queue, noise=NOISE), 2)
        assert told[-2][:2] == told[-1][:2] == [level, level]
        assert told[-2][2:] == [999, 999]
        assert torch.equal(after.latents[:, :, :2], queue.latents[:, :, :2])
        assert torch.equal(contexts[-1], queue.latents[0, :, :2]) == (level == 0)
        assert torch.equal(contexts[-1], contexts[-2]) == (level == 0)  # fresh noise in every step
        error = contexts[-1] - queue.latents[0, :, :2] * ACP[level].sqrt() if level else torch.zeros(1)
        assert error.abs().max() < 5 * (1 - ACP[level]).sqrt()


def test_a_consistency_step_forgets_the_noise_that_was():
    """Whatever eps the network finds, x0 gets fresh noise of the next level, and none at the end."""
    plan = plateau(4, 4, 1, lookahead=False)
    schedule = schedule_of(plan, eta=CONSISTENCY)
    generator = torch.Generator().manual_seed(0)
    x0, eps, fresh = torch.randn(3, 1, 1, 4, 1, 2, generator=generator)
    level = torch.tensor([[3, 2, 1, 0]])
    after, predicted = schedule.step(schedule.q_sample(x0, level, eps), eps, level, level - 1, fresh)
    torch.testing.assert_close(predicted, x0, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(after, schedule.q_sample(x0, level - 1, fresh), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(after[:, :, 3], x0[:, :, 3], atol=1e-3, rtol=1e-3)


@settings(deadline=None)
@given(plan=plans().filter(lambda plan: plan.front or not plan.in_blocks), source=st.integers(1, 30))
def test_frames_that_are_known_stay_what_they_are(plan, source):
    """A queue that goes on from known frames brings each of them to its end unchanged, and then new ones, from 0."""
    schedule = schedule_of(plan)
    known = NOISE.draw("known", range(source), [1] * source)
    queue = LatentQueue.from_known(known, plan, schedule, noise=NOISE)
    ends, new = {}, []
    for after in denoise_queue(mixing, schedule, queue, noise=NOISE):
        if after.ended:
            leaving = slice(plan.front, plan.front + plan.leaving)
            ends |= dict(zip(after.frames[leaving].tolist(), after.latents[0, :, leaving].unbind(1), strict=True))
        new += after.finished.unbind(2)
        if len(new) > 2 * plan.leaving:
            break
    for frame, latent in ends.items():
        if frame < 0:
            assert torch.equal(latent, known[0, :, max(0, source + frame)])
    assert max(ends) + 1 == len(new)


@pytest.mark.parametrize(
    ("rows", "leaving", "fault"),
    [
        (((0, 1), (CLEAN, 0), (CLEAN, 0)), 1, None),
        (((0, 1), (CLEAN, 1)), 1, "the last row, moved by 1, is not the first row"),
        (((0, 1), (1, 0)), 1, "a level rises"),
        (((1, 1), (CLEAN, CLEAN)), 2, "falls by more than one"),
        (((1, 1), (0, 0)), 2, "a frame that leaves"),
        (((0, 2), (CLEAN, 1)), 1, "a level is not from -1 to 1"),
        (((0, 1, 1), (CLEAN, 0, 1)), 1, "do not cover 3 slots"),
        (((CLEAN, CLEAN),), 2, "a period has no step"),
        (((0, 0), (CLEAN, CLEAN)), 2, "a frame comes in that is neither noise"),
    ],
)
def test_a_plan_that_is_none_is_refused(rows, leaving, fault):
    if fault is None:
        Plan("mine", rows, leaving, 2, 2, 2)
    else:
        with pytest.raises(ValueError, match=f"--plan mine: .*{fault}"):
            Plan("mine", rows, leaving, 2, 2, 2)


def test_a_plan_prints_itself():
    assert str(plateau(4, 2, 2, lookahead=False)).splitlines()[1:] == [
        "  before step 1: 0 0 1 1",
        "  at the end:    . . 0 0",
    ]
    assert str(between(5, 2, 1, known=3)).splitlines()[1] == "  before step 1: . . . 0 ."
    assert pyramid(4, 2, lookahead=False).rows == plateau(4, 2, 2, lookahead=False).rows
    assert fifo(2, 2, lookahead=True).rows == ((CLEAN, 0, 1), (CLEAN, CLEAN, 0))


class KeysOf:
    """The same Gaussians as NOISE has, and a list of what was asked for."""

    def __init__(self):
        self.keys = []

    def draw(self, purpose, frames, levels):
        self.keys += zip([purpose] * len(frames), frames, levels, strict=True)
        return NOISE.draw(purpose, frames, levels)


@settings(deadline=None)
@given(plan=plans(), context_level=st.sampled_from([0, 20]))
def test_no_noise_is_used_twice(plan, context_level):
    """Each step of a frame, each arrival and each look at a clean frame has Gaussians of its own."""
    schedule, noise = schedule_of(plan, context_level=context_level), KeysOf()
    for after in islice(denoise_queue(mixing, schedule, first_queue(plan, schedule), noise=noise), 3 * plan.steps):
        assert after.passes
    new = [key for key in noise.keys if key[0] != "step" or key[2] != CLEAN]
    assert len(set(new)) == len(new)
    if context_level and plan.front and plan.levels > 1:  # a single level takes no forward
        assert "context" in {purpose for purpose, _, _ in new}


def test_a_known_frame_has_one_gaussian_at_all_levels():
    plan = fifo(4, 8, lookahead=True)
    schedule, noise = schedule_of(plan, eta=0.0), KeysOf()
    known = NOISE.draw("a clip", range(12), [0] * 12)
    queue = LatentQueue.from_known(known, plan, schedule, noise=noise)
    for after in islice(denoise_queue(mixing, schedule, queue, noise=noise), 3):
        frame = 4  # counted from the end of the known ones
        slot = after.frames.tolist().index(-frame)
        alpha = schedule.alphas[after.levels[slot] + 1]
        expected = alpha.sqrt() * known[0, :, -frame] + (1 - alpha).sqrt() * NOISE.draw("known", [-frame], [0])[0, :, 0]
        torch.testing.assert_close(after.latents[0, :, slot], expected.float(), atol=1e-5, rtol=1e-5)


def test_blocks_follow_the_last_frames():
    """Of the base clip, and of known frames: the context of the first new block is what stands before it."""
    plan = autoregressive(4, 2, 8)
    schedule = schedule_of(plan)
    clip = NOISE.draw("a clip", range(4), [0] * 4)
    for queue in (
        LatentQueue.from_clip(clip, plan, schedule, noise=NOISE),
        LatentQueue.from_known(clip, plan, schedule, noise=NOISE),
    ):
        assert torch.equal(queue.latents[:, :, :2], clip[:, :, 2:])
        assert queue.frames.tolist() == [queue.head_frame + k for k in (-2, -1, 0, 1)]


def test_scales_of_the_signal_count_in_noisy_context():
    scales = torch.linspace(1, 0.7, 1000)
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(8), eta=0, signal_scales=scales, context_level=500)
    x, noise = torch.full((1, 1, 2, 1, 1), 3.0), torch.full((1, 1, 2, 1, 1), -7.0)
    seen = schedule.with_context_noise(x, torch.tensor([[CLEAN, 3]]), noise)
    noised = 3 * ACP[500].sqrt() * scales[500] - 7 * (1 - ACP[500]).sqrt()
    assert seen.flatten().tolist() == pytest.approx([noised.item(), 3])
