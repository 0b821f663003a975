"""The schedule, base-clip sampling and the queue against the originals."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count, islice

import numpy as np
import pytest
import torch
from helpers import assert_agrees, golden, golden_json, with_golden_weights
from queues import (
    ACP,
    BASE_CLIP_VECTORS,
    BUFFERS,
    CPU,
    FIFO_VECTORS,
    RULES,
    SCALES,
    Recorded,
    Small,
    after_step,
    assert_base_clip_agrees,
    assert_compiled_agrees,
    assert_fifo_agrees,
    golden_unet,
    guided,
    queue_of,
)

from lvdm.diffusion.schedule import CLEAN, NoiseSchedule, fifo_spacing, videocrafter_spacing
from lvdm.models.ddpm3d import signal_scales
from lvdm.modules.networks.openaimodel3d import UNetModel
from lvdm.runtime.batching import Workers, workers_of
from lvdm.runtime.offload import offload_to_host
from lvdm.sampling.plan import fifo
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.taps.query_reuse import QueryReuse, reuse_queries


@pytest.fixture(scope="module")
def unet() -> UNetModel:
    return golden_unet()


def test_buffers():
    vectors = golden("schedule.npz")
    for name in ("betas", "alphas_cumprod"):
        np.testing.assert_allclose(BUFFERS[name], vectors[name], rtol=1e-6)
    np.testing.assert_allclose(SCALES, vectors["scale_arr"], rtol=1e-6)
    fixed = signal_scales(1000, scale_a=1, scale_b=0.7, fix_scale_bug=True)
    assert len(fixed) == 1000
    np.testing.assert_allclose(fixed, vectors["scale_arr"][:1000], rtol=1e-6)


def sigmas_of(schedule: NoiseSchedule) -> torch.Tensor:
    """The deviation of the noise that the step from each level to the one below adds, read off the step itself."""
    level = torch.arange(len(schedule))[None]
    nothing, noise = (fill(1, 1, len(schedule), 1, 1) for fill in (torch.zeros, torch.ones))
    after, _ = schedule.step(nothing, nothing, level, level - 1, noise)
    return after.flatten()


@pytest.mark.parametrize("eta", [0, 1])
@pytest.mark.parametrize("steps", [16, 64])
def test_tables(steps, eta):
    vectors = golden("schedule.npz")
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(steps), eta=eta, signal_scales=SCALES)
    assert schedule.timesteps.tolist() == vectors[f"timesteps_S{steps}"].tolist()
    tables = {
        f"alphas_S{steps}": schedule.alphas[1:],
        f"alphas_prev_S{steps}": schedule.alphas[:-1],
        f"sigmas_S{steps}_eta{eta}": sigmas_of(schedule),
        f"scale_arr_S{steps}": schedule.scales[1:],
        f"scale_arr_prev_S{steps}": schedule.scales[:-1],
    }
    for name, table in tables.items():
        np.testing.assert_allclose(table, vectors[name], rtol=1e-5, atol=1e-7)


def test_videocrafter_spacing_has_its_true_number_of_steps():
    spacing = videocrafter_spacing(64)
    assert len(spacing) == 67
    assert spacing[:3].tolist() == [1, 16, 31]
    assert spacing.max() < 1000
    assert videocrafter_spacing(1008).diff().min() >= 0  # more steps than timesteps: every one of them
    assert not NoiseSchedule.from_tables(ACP, spacing, eta=0).ends_in_place


@pytest.mark.parametrize("name", BASE_CLIP_VECTORS)
def test_base_clip(unet, name):
    assert_base_clip_agrees(unet, name)


@pytest.mark.parametrize(("name", "rule"), FIFO_VECTORS)
def test_fifo(unet, name, rule):
    assert_fifo_agrees(unet, name, rule)


def test_window_batches_give_the_same(unet):
    """In one batch, one by one, by threes and by n: the same queue after a pass."""
    vectors = golden("fifo_lookahead_eta1.npz")
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(64), eta=1)
    queue = queue_of(vectors, schedule)
    noise = vectors["step_noise"][0][None]
    whole = after_step(guided(unet, vectors), schedule, queue, noise)
    for rows in (1, 2, 6, 8):
        parts = after_step(guided(unet, vectors, workers=Workers(rows=rows)), schedule, queue, noise)
        assert_agrees(parts.latents, whole.latents, 1e-4)


def test_threads_give_the_same_with_a_q_cache(unet):
    """Parts on two threads at once keep their queries apart."""
    vectors = golden("fifo_qcache_unilatent_eta0.npz")
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(64), eta=0)
    queue = queue_of(vectors, schedule)
    with reuse_queries(unet, QueryReuse("TT", "attn1", 0.9)), ThreadPoolExecutor(2) as threads:
        denoise = guided(unet, vectors, workers=Workers(2, rows=2, run=threads.map))
        queue = after_step(denoise, schedule, queue, None)
    assert_agrees(queue.latents[0], vectors["queue_after_pass"][0], 1e-4)


def test_every_layer_is_compiled_once_for_a_shape(capfd, monkeypatch):
    """With a Q-cache and without: one graph each, which is traced, and computed with torch's own kernels."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    small = Small.on(CPU)
    torch._dynamo.utils.counters.clear()
    for rule in RULES:
        assert_compiled_agrees(small, rule, passes=2)
    assert capfd.readouterr().err.count("compiling") == 2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_fused_kernels_compute_the_same():
    """Those that --compile makes, of a network with one block of attention: others would take minutes."""
    layers = {"attention_resolutions": [], "addition_attention": False, "temporal_conv": False}
    assert_compiled_agrees(Small.on(CPU, **layers), None, passes=20)


class Room:
    """A device with room for 5 rows."""

    def watch(self) -> None:
        pass

    def fitting(self, rows: int) -> int:
        return 5


def arrangements(small: Small, stack: ExitStack) -> Iterator[tuple[str, Iterator[LatentQueue]]]:
    """Passes over the same queue, each computed in another way."""
    yield "a window at a time", small.passes(Workers(rows=2))
    yield "three windows at a time", small.passes(Workers(rows=6))
    yield "all windows at once", small.passes(Workers())
    yield "as many as fit", small.passes(Workers(memory=Room()))
    yield "the cores of a CPU", small.passes(stack.enter_context(workers_of(CPU, rows=None)))
    calls = count()

    def breathless(*batch: torch.Tensor) -> torch.Tensor:
        if next(calls) == 2:
            raise torch.OutOfMemoryError
        return small.unet(*batch)

    yield "after an out of memory in the third pass", small.passes(Workers(), forward=breathless)
    offload_to_host(CPU, [small.unet], stay=True)
    yield "offloaded", small.passes(Workers(rows=2))


@pytest.mark.parametrize(
    ("rule", "prompts", "scale"), [(None, 1, 4.0), (RULES[1], 1, 4.0), (None, 2, 4.0), (None, 1, 1.0), (None, 2, 1.0)]
)
def test_how_it_is_computed_changes_nothing(rule, prompts, scale, capfd):
    """Over 8 passes, against one row at a time: windows one by one, guidance halves apart."""
    small = Small.on(CPU, prompts=prompts, scale=scale)
    with ExitStack() as stack:
        stack.enter_context(reuse_queries(small.unet, rule))
        plain = list(islice(small.passes(Workers(rows=1)), 8))
        assert (plain[-1].latents - plain[0].latents).abs().max() > 0.1
        for name, passes in arrangements(small, stack):
            for expected, queue in zip(plain, passes, strict=False):
                assert_agrees(queue.latents, expected.latents, 1e-4, name)
    assert capfd.readouterr().err.count("out of memory") == 1


def test_no_pass_waits_for_the_device():
    """Tensors on the meta device have no values: whoever asks for one, as for a level to draw noise for, fails."""
    small = Small.on(torch.device("meta"))
    *_, last = islice(small.passes(Workers(rows=4)), 3)
    assert last.latents.device.type == "meta"
    assert last.head_frame == 8 - 16 + 2


def test_guidance_of_one_needs_no_unconditional_half(unet):
    vectors = golden("unet_t2v.npz")
    vectors["context_uncond"] = torch.full_like(vectors["context"], torch.nan)
    vectors["guidance"] = torch.tensor(1.0)
    denoise = guided(unet, vectors)
    timesteps = vectors["timestep_frames"][None]
    out = denoise(vectors["x"], timesteps, torch.arange(timesteps.shape[1])[None])
    assert_agrees(out, vectors["out_frames_plain"])


@pytest.mark.parametrize("use_scale", [False, True])
def test_v_and_eps_are_two_names_of_one_step(use_scale):
    """From the same x0 and eps, both parameterizations step to the same place, and that is the level below."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 1, 4, 6, 2, 2, generator=generator)
    level = torch.randint(1, 16, (1, 6), generator=generator)
    scales = SCALES if use_scale else None
    by_eps, by_v = (
        NoiseSchedule.from_tables(ACP, fifo_spacing(16), eta=0, parameterization=name, signal_scales=scales)
        for name in ("eps", "v")
    )
    x = by_eps.q_sample(x0, level, eps)
    v = by_v.target(x0, level, eps)
    below = by_eps.q_sample(x0, level - 1, eps)
    for schedule, output in ((by_eps, by_eps.target(x0, level, eps)), (by_v, v)):
        after, predicted = schedule.step(x, output, level, level - 1, None)
        assert_agrees(after, below, 1e-4)
        assert_agrees(predicted, x0, 1e-3)


def test_one_step_over_several_levels_is_several_steps():
    """Without noise, and with a network that is right, a step to any lower level ends where single steps end."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 1, 4, 6, 2, 2, generator=generator)
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(16), eta=0, parameterization="v", signal_scales=SCALES)
    level = torch.tensor([[15, 9, 3, 15, 1, 0]])
    for lower in (torch.tensor([[3, 8, 0, CLEAN, CLEAN, CLEAN]]), torch.full((1, 6), CLEAN)):
        x = schedule.q_sample(x0, level, eps)
        after, _ = schedule.step(x, schedule.target(x0, level, eps), level, lower, None)
        expected = schedule.q_sample(x0, lower, eps)
        assert_agrees(after, expected, 1e-4)


def test_queue_scale_changes_start_and_steps():
    """With use_scale in the queue, slots are scaled as the model was trained; without, as the originals do it."""
    clip = torch.ones(1, 1, 4, 1, 1)
    noise = torch.zeros(1, 1, 16, 1, 1)
    plain, scaled = (
        LatentQueue.from_clip(
            clip,
            fifo(4, 16, lookahead=False),
            NoiseSchedule.from_tables(ACP, fifo_spacing(16), eta=0, signal_scales=table),
            noise=Recorded(noise),
        )
        for table in (None, SCALES)
    )
    np.testing.assert_allclose(scaled.latents.flatten(), plain.latents.flatten() * SCALES[fifo_spacing(16)], rtol=1e-6)
    # A network that answers with the true noise (none): scaled signals arrive where the next level's scale says.
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(16), eta=0, signal_scales=SCALES)
    after = after_step(lambda x, timesteps, frames: torch.zeros_like(x), schedule, scaled, None)
    below = (schedule.alphas[:-1].sqrt() * schedule.scales[:-1]).float()[None, None, :, None, None]
    torch.testing.assert_close(after.latents, below, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", [QueryReuse("ST", "attn2", 0.9), QueryReuse("TT", "attn1", 0.5)])
def test_fifo_with_relative_position_and_other_q_caches(rule):
    """The kind of the 1024 model runs in the queue, and a Q-cache is felt."""
    params = golden_json("small_t2v.json")["unet_config"]["params"]
    relative = UNetModel(**params | {"use_relative_position": True, "temporal_conv": False})
    relative = with_golden_weights(relative, "model.diffusion_model.")
    vectors = golden("fifo_no_lookahead_eta1.npz")
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(64), eta=0)
    queue = queue_of(vectors, schedule)
    plain = after_step(guided(relative, vectors), schedule, queue, None)
    with reuse_queries(relative, rule):
        reused = after_step(guided(relative, vectors), schedule, queue, None)
    assert reused.latents.isfinite().all()
    assert (reused.latents - plain.latents).abs().max() > 1e-4


@pytest.mark.parametrize(("f", "n", "lookahead"), [(2, 1, True), (4, 1, True), (4, 3, False), (16, 4, True)])
def test_windows_write_every_active_slot_once(f, n, lookahead):
    """A pass with a network that answers with its own input's level and frame must put each answer in its slot."""
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(f * n), eta=0)
    plan = fifo(f, f * n, lookahead=lookahead)
    stride = plan.stride
    noise = Recorded(torch.randn(1, 1, plan.slots, 1, 1))
    queue = LatentQueue.from_clip(torch.zeros(1, 1, f, 1, 1), plan, schedule, noise=noise)
    seen = []

    def denoise(x, timesteps, frames):
        seen.append(timesteps)
        slots = torch.arange(queue.slots).unfold(0, f, stride)
        assert torch.equal(frames, queue.frames[slots])
        assert torch.equal(x, queue.latents[0][:, slots].transpose(0, 1))
        return timesteps[:, None, :, None, None].float()

    after = after_step(denoise, schedule, queue, None)
    assert seen[0].shape == (f * n // stride, f)
    answer = schedule.timesteps[queue.levels[queue.active]].float()[None, None, :, None, None]
    level = queue.levels[None, queue.active]
    expected, _ = schedule.step(queue.latents[:, :, queue.active], answer, level, level - 1, None)
    torch.testing.assert_close(after.latents[:, :, queue.active], expected)
    torch.testing.assert_close(after.latents[:, :, : f - stride], queue.latents[:, :, : f - stride])


def test_last_step_changes_nothing():
    schedule = NoiseSchedule.from_tables(ACP, fifo_spacing(64), eta=1)
    x, eps = torch.randn(2, 1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    level = torch.zeros(1, 3, dtype=torch.long)
    torch.testing.assert_close(schedule.step(x, eps, level, level - 1, x)[0], x, atol=1e-6, rtol=0)
