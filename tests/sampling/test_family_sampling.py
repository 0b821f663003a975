"""DynamiCrafter's and T2V-Turbo's schedules, steps and whole runs against the originals, and what no vector covers."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from helpers import assert_agrees, family, family_json, with_golden_weights
from queues import ACP, BUFFERS, RecordedClip
from torch import Tensor

from lvdm.diffusion.conditioning import Conditioning, dealt_out
from lvdm.diffusion.guidance import DistilledGuidance, GuidedDenoiser, rescaled
from lvdm.diffusion.noise import KeyedNoise
from lvdm.diffusion.schedule import CLEAN, CONSISTENCY, SPACINGS, NoiseSchedule, boundary_weights
from lvdm.models.ddpm3d import linear_betas, schedule_buffers, signal_scales, zero_terminal_snr
from lvdm.modules.networks.openaimodel3d import UNetModel
from lvdm.sampling.plan import full, plateau
from lvdm.sampling.queue import LatentQueue
from lvdm.sampling.sampler import denoise_queue, sample_clip

SPACING = {"uniform": SPACINGS["videocrafter"], "uniform_trailing": SPACINGS["trailing"]}
ZERO_SNR = schedule_buffers(zero_terminal_snr(linear_betas(1000, start=0.00085, end=0.012)))
ZERO_SNR_ACP = torch.tensor(ZERO_SNR["alphas_cumprod"], dtype=torch.float32)
SEED = 0


def scales_of(config: dict) -> Tensor | None:
    if not config.get("use_dynamic_rescale"):
        return None
    table = signal_scales(1000, scale_a=1.0, scale_b=config["base_scale"], fix_scale_bug=False)
    return torch.tensor(table, dtype=torch.float32)


def schedule_of(vectors: dict, steps: int, *, eta: float) -> NoiseSchedule:
    """The schedule that a DynamiCrafter model of the vectors' config is sampled with."""
    config = family_json(str(vectors["config"]))
    schedule = NoiseSchedule.from_tables(
        ZERO_SNR_ACP if config.get("rescale_betas_zero_snr") else ACP,
        SPACING[str(vectors["spacing"])](steps),
        eta=eta,
        parameterization=config.get("parameterization", "eps"),
        signal_scales=scales_of(config),
    )
    return ending_as_theirs(schedule) if "base_scale" in config else schedule


def ending_as_theirs(schedule: NoiseSchedule) -> NoiseSchedule:
    """The same levels with clean latents left at the scale of level 0, as DynamiCrafter's own sampler does."""
    return replace(schedule, scales=torch.cat([schedule.scales[1:2], schedule.scales[1:]]))


def turbo_schedule(timesteps: Tensor) -> NoiseSchedule:
    """The schedule that T2V-Turbo is sampled with, at rising `timesteps`."""
    schedule = NoiseSchedule.from_tables(ACP, timesteps, eta=CONSISTENCY)
    return NoiseSchedule(**{**vars(schedule), "boundary": True})


def unet_of(vectors: dict) -> UNetModel:
    params = family_json(str(vectors["config"]))["unet_config"]["params"]
    return with_golden_weights(UNetModel(**params), "model.diffusion_model.")


@pytest.mark.parametrize("size", ["256", "512"])
def test_dynamicrafter_tables(size):
    vectors = family(f"dynamicrafter_{size}_schedule.npz")
    buffers = {"256": BUFFERS, "512": ZERO_SNR}[size]
    scales = scales_of(family_json(str(vectors["config"])))
    for name, table in buffers.items():
        np.testing.assert_allclose(table, vectors[f"buffer_{name}"], rtol=2e-5, atol=1e-7, err_msg=name)
    if size == "512":
        np.testing.assert_allclose(scales, vectors["buffer_scale_arr"], rtol=1e-6)
        assert buffers["alphas_cumprod"][-1] == 0
    for steps in vectors["steps"].tolist():
        schedule = schedule_of(vectors, steps, eta=1.0)
        assert schedule.timesteps.tolist() == vectors[f"timesteps_{steps}"].tolist()
        np.testing.assert_allclose(schedule.alphas[1:], vectors[f"alphas_{steps}"], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(schedule.alphas[:-1], vectors[f"alphas_prev_{steps}"], rtol=1e-5, atol=1e-7)
        if f"scales_{steps}" in vectors:
            np.testing.assert_allclose(schedule.scales[1:], vectors[f"scales_{steps}"], rtol=1e-6)
            np.testing.assert_allclose(schedule.scales[:-1], vectors[f"scales_prev_{steps}"], rtol=1e-6)


def test_turbo_tables():
    vectors = family("t2v_turbo_schedule.npz")
    np.testing.assert_allclose(ACP, vectors["alphas_cumprod"], rtol=1e-5)
    for steps, origin in vectors["steps_and_origin"].tolist():
        timesteps = vectors[f"timesteps_{steps}_{origin}"]
        skip, out = boundary_weights(timesteps)
        np.testing.assert_allclose(skip, vectors[f"c_skip_{steps}_{origin}"], rtol=1e-5)
        np.testing.assert_allclose(out, vectors[f"c_out_{steps}_{origin}"], rtol=1e-5)
    skip, out = boundary_weights(torch.tensor([0]))
    assert (skip.item(), out.item()) == (1, 0)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("dynamicrafter_512_queue_step_eta1", 1e-3), ("t2v_turbo_queue_step", 1e-5)]
)
def test_step_of_each_level(name, tolerance):
    vectors = family(f"{name}.npz")
    turbo = name.startswith("t2v")
    steps, level = vectors["steps"].item(), vectors["levels"][None]
    schedule = turbo_schedule(vectors["timesteps"]) if turbo else schedule_of(vectors, steps, eta=vectors["eta"].item())
    after, x0 = schedule.step(vectors["x"], vectors["network_output"], level, level - 1, vectors["noise"])
    if turbo:
        assert_agrees(x0, vectors["denoised"], tolerance)
        assert_agrees(after[:, :, 1:], vectors["x_prev"][:, :, 1:], tolerance)
        assert torch.equal(after[:, :, :1], x0[:, :, :1])  # level 0 gives out what was denoised, without noise
    else:
        scale = torch.cat(
            [schedule.scales[:1], schedule.scales[1:-1]]
        )  # the original's x0 has the scale of the level below
        assert_agrees(x0 * scale.float()[None, None, :, None, None], vectors["pred_x0"], tolerance)
        assert_agrees(after, vectors["x_prev"], tolerance)


def test_guidance_is_rescaled_over_a_clip():
    vectors = family("dynamicrafter_guidance.npz")
    cond, uncond, scale = vectors["cond"], vectors["uncond"], vectors["guidance"].item()
    guided = torch.lerp(uncond, cond, scale)
    assert_agrees(guided, vectors["guided"])
    one_level = torch.full((2, 16), 500)
    share = vectors["guidance_rescale"].item()
    assert_agrees(rescaled(guided, cond, one_level, share=share), vectors["rescaled"])
    half = torch.cat([torch.full((2, 8), 500), torch.full((2, 8), 300)], dim=1)
    parts = (slice(8), slice(8, 16))
    apart = [rescaled(guided[:, :, part], cond[:, :, part], half[:, part], share=share) for part in parts]
    apart = torch.cat(apart, dim=2)
    assert_agrees(rescaled(guided, cond, half, share=share), apart)
    assert (apart - vectors["rescaled"]).abs().max() > 1e-3


RUNS = [
    ("dynamicrafter_256_sampling_eta1", 1e-4),
    ("dynamicrafter_512_sampling_eta0", 1e-4),
    ("dynamicrafter_512_sampling_eta1", 1e-3),  # the original adds 2.4e-4 of noise where there should be none
    ("dynamicrafter_512_sampling_eta1_5steps", 1e-4),
]


@pytest.mark.parametrize(("name", "tolerance"), RUNS)
def test_dynamicrafter_run(name, tolerance):
    vectors = family(f"{name}.npz")
    schedule = schedule_of(vectors, vectors["steps"].item(), eta=vectors["eta"].item())
    conditioning = Conditioning(
        contexts=dealt_out(vectors["text"][:, None], vectors["image"].unflatten(1, (16, 16))),
        starts=torch.zeros(1, dtype=torch.long),
        blend=0,
        unconditional=dealt_out(vectors["text_uncond"][:, None], vectors["image_uncond"].unflatten(1, (16, 16))),
        fps=vectors["fs"],
        latent=vectors["concat"],
    )
    denoise = GuidedDenoiser(
        unet_of(vectors), conditioning, vectors["guidance"].item(), rescale=vectors["guidance_rescale"].item()
    )
    noise = RecordedClip(vectors["x_T"], iter(vectors.get("step_noise", torch.empty(0, 1))[:, 0]))
    for number, latents in enumerate(sample_clip(denoise, schedule, frames=16, noise=noise)):
        assert_agrees(latents, vectors["x_after_step"][number], tolerance, f"step {number}")
    assert_agrees(latents, vectors["final"], tolerance)


def turbo_denoiser(vectors: dict, version: str) -> GuidedDenoiser:
    text = vectors["text"][:, None]
    conditioning = Conditioning(text, torch.zeros(1, dtype=torch.long), 0, text, vectors["fps"].reshape(1))
    motion = (vectors["motion_gs"].item(), vectors["percentage"].item()) if version == "v2" else ()
    distilled = DistilledGuidance(vectors["guidance"].item(), *motion)
    return GuidedDenoiser(unet_of(vectors), conditioning, 1.0, distilled=distilled)


def test_motion_guidance_is_told_at_the_noisy_share_of_the_timesteps():
    timesteps = torch.tensor([[999, 700, 699, 0]])
    scale, motion = DistilledGuidance(7.5, 0.05, 0.3).told(timesteps)
    assert scale.tolist() == [7.5]
    torch.testing.assert_close(motion, torch.tensor([[0.05, 0.05, 0, 0]]))
    assert len(DistilledGuidance(7.5).told(timesteps)) == 1


def test_a_distilled_model_leaves_clean_frames_as_they_are():
    """At timestep 0, x itself is x0; from about 100 on, only what is predicted counts."""
    schedule = turbo_schedule(torch.tensor([0, 100]))
    x, eps = torch.randn(2, 1, 1, 2, 4, 4)
    _, x0 = schedule.step(x, eps, torch.tensor([[0, 1]]), torch.tensor([[CLEAN, CLEAN]]), x)
    assert torch.equal(x0[:, :, 0], x[:, :, 0])
    alpha = ACP[100]
    assert_agrees(x0[:, :, 1], (x[:, :, 1] - (1 - alpha).sqrt() * eps[:, :, 1]) / alpha.sqrt(), 1e-5)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_turbo_run(version):
    vectors = family(f"t2v_turbo_{version}_sampling.npz")
    schedule = turbo_schedule(vectors["timesteps"].flip(0))
    noise = RecordedClip(vectors["x_T"], iter(vectors["step_noise"][:, 0]))
    *before, final = sample_clip(turbo_denoiser(vectors, version), schedule, frames=16, noise=noise)
    for number, latents in enumerate(before):
        assert_agrees(latents, vectors["x_after_step"][number], 1e-4)
    assert_agrees(final, vectors["final"], 1e-4)


def test_a_plateau_queue_at_one_level_is_turbos_own_sampling():
    """Plan `full`: blocks of the queue are exactly the model's own four steps, and those of `plateau:4` are not."""
    vectors = family("t2v_turbo_v1_sampling.npz")
    denoise, schedule = turbo_denoiser(vectors, "v1"), turbo_schedule(vectors["timesteps"].flip(0))
    noise = KeyedNoise(SEED, "", 0, (4, 8, 8), torch.device("cpu"))
    queue = LatentQueue.of_noise(full(16, 4), noise=noise)
    *_, ended = (
        queue for _, queue in zip(range(4), denoise_queue(denoise, schedule, queue, noise=noise), strict=False)
    )
    x = noise.draw("enqueue", range(16), [4] * 16)
    for timestep, below in ((999, 749), (749, 499), (499, 249), (249, None)):  # as the original's pipeline does it
        t = torch.full((1, 16), timestep)
        eps = denoise.unet(x, t, denoise.conditioning.contexts, torch.tensor([16]), torch.tensor([7.5]))
        alpha, q = ACP[timestep].double(), (10 * timestep) ** 2 + 0.25
        x0 = (x - (1 - alpha).sqrt().float() * eps) / alpha.sqrt().float()
        x = 10 * timestep / q**0.5 * x0 + 0.25 / q * x
        if below is not None:
            level = [249, 499, 749, 999].index(timestep)
            fresh = noise.draw("step", range(16), [level] * 16)
            x = ACP[below].sqrt() * x + (1 - ACP[below]).sqrt() * fresh
    assert_agrees(ended.finished, x, 1e-5)
    *_, clip = sample_clip(denoise, schedule, frames=16, noise=Renamed(noise))
    assert torch.equal(ended.finished, clip)
    assert plateau(16, 4, 4, lookahead=False).forwards == 0.25


@dataclass(frozen=True)
class Renamed:
    """Give a base clip the noise that the queue's frames have."""

    noise: KeyedNoise

    def draw(self, purpose, frames, levels):
        return self.noise.draw({"base": "enqueue", "base step": "step"}[purpose], frames, levels)


def bounded_network(x: Tensor, timesteps: Tensor, frames: Tensor) -> Tensor:
    """A network whose v is as large as a true one's."""
    return x.roll(1, dims=-1)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "fifo"])
def test_pure_noise_makes_no_nan_for_any_number_of_steps(eta, spacing):
    """alpha bar is 0 at the last level: in a step from every level to others, or none, and in whole runs."""
    scales = torch.tensor(signal_scales(1000, scale_a=1.0, scale_b=0.7, fix_scale_bug=False), dtype=torch.float32)
    generator = torch.Generator().manual_seed(SEED)
    for steps in range(2, 201):
        schedule = NoiseSchedule.from_tables(
            ZERO_SNR_ACP,
            SPACINGS[spacing](steps),
            eta=eta,
            parameterization="v",
            signal_scales=scales,
        )
        assert schedule.alphas[-1] == 0
        assert len(schedule) == steps
        x, output, noise = torch.randn(3, 1, 1, steps, 2, 2, generator=generator)
        level = torch.arange(steps)[None]
        for next_level in (level - 1, torch.full_like(level, CLEAN), level):
            after, x0 = schedule.step(x, output, level, next_level, noise if eta else None)
            assert torch.cat([after, x0]).isfinite().all(), steps
            assert after.abs().max() < 12, steps
        for latents in sample_clip(
            bounded_network, schedule, frames=2, noise=KeyedNoise(SEED, "", 0, (1, 2, 2), x.device)
        ):
            assert latents.isfinite().all(), steps


def test_fresh_noise_is_what_the_last_level_is():
    schedule = NoiseSchedule.from_tables(ZERO_SNR_ACP, SPACINGS["fifo"](16), eta=1.0, parameterization="v")
    clip, drawn = torch.randn(2, 1, 1, 1, 2, 2)
    assert torch.equal(schedule.q_sample(clip, torch.tensor([[15]]), drawn), drawn)
    _, x0 = schedule.step(drawn, clip, torch.tensor([[15]]), torch.tensor([[14]]), clip)
    assert torch.equal(x0, -clip)


def test_the_last_step_of_a_queue_ends_at_full_signal():
    """What DynamiCrafter's own sampler leaves at the scale of its last timestep, queues leave as it is."""
    scales = torch.tensor(signal_scales(1000, scale_a=1.0, scale_b=0.3, fix_scale_bug=False), dtype=torch.float32)
    ours = NoiseSchedule.from_tables(
        ZERO_SNR_ACP, SPACINGS["trailing"](50), eta=0.0, parameterization="v", signal_scales=scales
    )
    theirs = ending_as_theirs(ours)
    assert theirs.scales[0].item() == pytest.approx(0.967, abs=1e-3)
    x0, eps = torch.randn(2, 1, 1, 1, 4, 4)
    level = torch.tensor([[0]])
    x = theirs.q_sample(x0, level, eps)
    for schedule, scale in ((theirs, 0.96667), (ours, 1.0)):
        after, predicted = schedule.step(x, schedule.target(x0, level, eps), level, level - 1, None)
        assert_agrees(predicted, x0, 1e-5)
        alpha = schedule.alphas[0].float()
        assert_agrees(after, alpha.sqrt() * scale * x0 + (1 - alpha).sqrt() * eps, 1e-4)
