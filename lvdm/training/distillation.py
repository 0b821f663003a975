"""Training of a picture encoder: its image tokens are to be what the text encoder says of the picture's caption.

Left to the diffusion loss alone, an encoder that knows nothing yet is never taught: a U-Net that reads captions has no
use for it. So the text encoder, which stays as it is, teaches it first (Hinton et al. 2015, arXiv 1503.02531), and the
U-Net can read the tokens from its first step with pictures on, as it has learned to read the caption's.
"""

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor

from lvdm.models.ddpm3d import LatentVisualDiffusion
from lvdm.training.optimization import Optimization, warmup_cosine


class DistillationTraining(LightningModule):
    """Mean squared error of a picture's N image tokens to its caption's first N text tokens.

    Trains `model.embedder` and `model.image_proj_model`; the rest stands by. A blank picture, which stands for none,
    is to say what the empty caption says: a share of `blank` of each batch.
    """

    def __init__(self, model: LatentVisualDiffusion, *, optimization: Optimization, blank: float = 0.05):
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.blank = blank
        self.model.requires_grad_(False)
        self.model.embedder.requires_grad_(True)
        self.model.image_proj_model.requires_grad_(True)

    def training_step(self, batch: dict, index: int) -> Tensor:
        """`batch`: "pictures" (B, P, 3, H, W) in [-1, 1], P of each of B clips, and their "caption"s."""
        pictures, count = batch["pictures"].flatten(0, 1), batch["pictures"].shape[1]
        kept = torch.rand(len(pictures), device=self.device) >= self.blank
        seen = self.model.encode_pictures(pictures * kept[:, None, None, None])[:, 0]  # (B P, N, D)
        with torch.no_grad():
            told = self.model.encode_text([*batch["caption"], ""])[:, 0, : seen.shape[1]]
        told = torch.where(kept[:, None, None], told[:-1].repeat_interleave(count, dim=0), told[-1])
        loss = F.mse_loss(seen, told)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        return warmup_cosine(trained, self.optimization)
