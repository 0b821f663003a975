"""Distill the text encoder into the image encoder: image tokens learn to equal the text tokens of the caption.

The diffusion loss alone does not train a new image encoder, because a U-Net that already reads captions ignores it. So
it is first trained with the frozen text encoder as the teacher (Hinton et al. 2015, arXiv 1503.02531). After that, the
U-Net can use image tokens from its first step on, since they look like the text tokens that it knows.
"""

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor

from lvdm.models.ddpm3d import LatentVisualDiffusion
from lvdm.training.optimization import Optimization, warmup_cosine


class DistillationTraining(LightningModule):
    """Minimize the squared error between the N image tokens of a picture and the first N text tokens of its caption.

    Only `model.embedder` and `model.image_proj_model` are trained. A share `blank` of the pictures is replaced by a
    blank one, which stands for no picture and gets the tokens of the empty caption.
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
        """Return the loss of a batch: "pictures" (B, P, 3, H, W) in [-1, 1], P of each clip, and B "caption"s."""
        pictures, count = batch["pictures"].flatten(0, 1), batch["pictures"].shape[1]
        kept = torch.rand(len(pictures), device=self.device) >= self.blank
        image_tokens = self.model.encode_pictures(pictures * kept[:, None, None, None])[:, 0]  # (B P, N, D)
        with torch.no_grad():
            text_tokens = self.model.encode_text([*batch["caption"], ""])[:, 0, : image_tokens.shape[1]]  # (B+1, N, D)
        target = torch.where(kept[:, None, None], text_tokens[:-1].repeat_interleave(count, dim=0), text_tokens[-1])
        loss = F.mse_loss(image_tokens, target)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        """Return the optimizer of the weights that are trained and its schedule, for Lightning."""
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        return warmup_cosine(trained, self.optimization)
