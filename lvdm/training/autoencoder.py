"""Train the first stage on single frames."""

from dataclasses import dataclass

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from lvdm.models.autoencoder import AutoencoderKL
from lvdm.training.optimization import Optimization, warmup_cosine


@dataclass(frozen=True)
class ReconstructionLoss:
    """The weights of the loss: squared error + `absolute` * absolute error + `kl` * KL divergence per latent value.

    The error of pixels that the clip's mask covers is weighted by 1 + `object_weight`. Objects are small: without it
    the autoencoder spends its few latent channels on the plain background, and objects lose their edges and colour.
    """

    object_weight: float = 0.0
    absolute: float = 0.1
    kl: float = 1e-4


class AutoencoderTraining(LightningModule):
    """Train an autoencoder on single frames."""

    def __init__(self, autoencoder: AutoencoderKL, *, optimization: Optimization, loss: ReconstructionLoss):
        super().__init__()
        self.first_stage_model = autoencoder
        self.optimization = optimization
        self.loss = loss

    def training_step(self, batch: dict, index: int) -> Tensor:
        """Return the loss of a batch: "video" (B, 3, T, H, W) in [-1, 1], and perhaps "mask" (B, 1, T, H, W)."""
        pictures = batch["video"].transpose(1, 2).flatten(0, 1)
        posterior = self.first_stage_model.encode(pictures)
        reconstruction = self.first_stage_model.decode(posterior.sample(torch.randn_like(posterior.mean)))
        difference = reconstruction.float() - pictures
        error = difference.square() + self.loss.absolute * difference.abs()
        if "mask" in batch:
            error = error * (1 + self.loss.object_weight * batch["mask"].transpose(1, 2).flatten(0, 1))
        kl = posterior.kl().float().mean()
        # PSNR is defined for values in 0..1; here they are in -1..1.
        psnr = -10 * (difference.detach().square().mean((1, 2, 3)) / 4).log10().mean()
        self.log_dict({"psnr": psnr, "kl": kl}, prog_bar=True)
        return error.mean() + self.loss.kl * kl

    def configure_optimizers(self) -> dict:
        """Return the optimizer of the autoencoder's weights and its schedule, for Lightning."""
        return warmup_cosine(self.first_stage_model.parameters(), self.optimization)

    @torch.no_grad()
    def sample_sheet(self, video: Tensor) -> Tensor:
        """Return the frames of `video` (B, 3, T, H, W) above their reconstructions: (3, 2 H, B T W)."""
        pictures = video.transpose(1, 2).flatten(0, 1).to(self.device)
        restored = self.first_stage_model.decode(self.first_stage_model.encode(pictures).mean)
        return torch.cat([torch.cat(list(row), dim=2) for row in (pictures, restored)], dim=1)
