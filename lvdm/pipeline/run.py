"""Hold what the videos of a run share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from lvdm.diffusion.schedule import SPACINGS, NoiseSchedule, fifo_spacing
from lvdm.models.ddpm3d import LatentDiffusion
from lvdm.models.loading import load_network
from lvdm.pipeline.options import Options
from lvdm.runtime.batching import Workers, workers_of
from lvdm.runtime.compile import Compiled
from lvdm.runtime.distributed import ALONE, Ranks
from lvdm.runtime.process import process_settings
from lvdm.runtime.signals import Stop


@dataclass(frozen=True)
class Run:
    """Hold the model and how it is computed.

    Args:
        model: with its weights, on the device.
        options: resolved ones.
        workers: share the rows of a batch.
        ranks: processes that share the windows of a pass.
        stop: whether a signal has asked to stop.
        compiled: the U-Net for the queue, with `--compile`.
    """

    model: LatentDiffusion
    options: Options
    workers: Workers = field(default_factory=Workers)
    ranks: Ranks = ALONE
    stop: Stop = field(default_factory=lambda: Stop(ALONE))
    compiled: Compiled | None = None

    @property
    def device(self) -> torch.device:
        """Where latents are."""
        return self.model.betas.device

    def clip_schedule(self) -> NoiseSchedule:
        """Return the noise levels of clips that are made at once: the base clip, and frames in between."""
        timesteps = self._given_timesteps()
        if timesteps is None:
            timesteps = SPACINGS[self.options.base_spacing](self.options.steps)
        return self._schedule(timesteps, use_scale=True)

    def queue_schedule(self) -> NoiseSchedule:
        """Return the noise levels of the queue: those of its plan."""
        timesteps = self._given_timesteps()
        if timesteps is None:
            timesteps = fifo_spacing(self.options.queue_plan.levels)
        return self._schedule(timesteps, use_scale=self.options.queue_scale)

    def _schedule(self, timesteps: torch.Tensor, *, use_scale: bool) -> NoiseSchedule:
        return NoiseSchedule.of_model(
            self.model,
            timesteps,
            eta=self.options.eta,
            use_scale=use_scale,
            context_level=self.options.context_level,
        )

    def _given_timesteps(self) -> torch.Tensor | None:
        given = self.options.timesteps
        return None if given is None else torch.tensor(given[::-1])


def loaded_model(options: Options) -> LatentDiffusion:
    """Load the model that resolved options name, ready to sample; errors as of `lvdm.models.loading.load_network`."""
    return load_network(
        options.config,
        options.ckpt_path,
        options.base_ckpt_path,
        device=torch.device(options.device),
        unet_dtype=options.unet_dtype,
        offloaded=options.offloaded,
    )


@contextmanager
def run_with_compute_threads(model: LatentDiffusion, options: Options, ranks: Ranks, stop: Stop) -> Iterator[Run]:
    """Yield a run whose workers and process settings hold within this context."""
    device = model.betas.device
    with (
        workers_of(device, rows=options.rows) as workers,
        process_settings(device, allow_tf32=options.precision != "fp32"),
    ):
        yield Run(model, options, workers, ranks, stop, Compiled(model.unet) if options.compile else None)
