"""Training of the first stage on single frames."""

from dataclasses import dataclass

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from lvdm.models.autoencoder import AutoencoderKL
from lvdm.training.optimization import Optimization, warmup_cosine


@dataclass(frozen=True)
class ReconstructionLoss:
    """Squared error, plus `absolute` times the absolute error, plus `kl` nats per latent number.

    The error of the pixels that a clip's mask covers counts `1 + object_weight` times: objects are small, and an
    autoencoder that spends its few latent channels on plain background blurs them and loses their colour.
    """

    object_weight: float = 0.0
    absolute: float = 0.1
    kl: float = 1e-4


class AutoencoderTraining(LightningModule):
    """Trains an autoencoder on pictures."""

    def __init__(self, autoencoder: AutoencoderKL, *, optimization: Optimization, loss: ReconstructionLoss):
        super().__init__()
        self.first_stage_model = autoencoder
        self.optimization = optimization
        self.loss = loss

    def training_step(self, batch: dict, index: int) -> Tensor:
        """`batch`: "video" (B, 3, T, H, W) in [-1, 1] and, for some data sets, "mask" (B, 1, T, H, W)."""
        pictures = batch["video"].transpose(1, 2).flatten(0, 1)
        posterior = self.first_stage_model.encode(pictures)
        reconstruction = self.first_stage_model.decode(posterior.sample(torch.randn_like(posterior.mean)))
        difference = reconstruction.float() - pictures
        error = difference.square() + self.loss.absolute * difference.abs()
        if "mask" in batch:
            error = error * (1 + self.loss.object_weight * batch["mask"].transpose(1, 2).flatten(0, 1))
        kl = posterior.kl().float().mean()
        # Decibels of the error of one sample, on the 0..1 scale that PSNR is defined for.
        psnr = -10 * (difference.detach().square().mean((1, 2, 3)) / 4).log10().mean()
        self.log_dict({"psnr": psnr, "kl": kl}, prog_bar=True)
        return error.mean() + self.loss.kl * kl

    def configure_optimizers(self) -> dict:
        return warmup_cosine(self.first_stage_model.parameters(), self.optimization)

    @torch.no_grad()
    def sample_sheet(self, video: Tensor) -> Tensor:
        """Pictures of `video` (B, 3, T, H, W) above their reconstructions: (3, 2 H, B T W)."""
        pictures = video.transpose(1, 2).flatten(0, 1).to(self.device)
        restored = self.first_stage_model.decode(self.first_stage_model.encode(pictures).mean)
        return torch.cat([torch.cat(list(row), dim=2) for row in (pictures, restored)], dim=1)
