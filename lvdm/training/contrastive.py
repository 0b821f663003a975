"""Training of a picture encoder to tell pictures by their captions, before the U-Net learns to look at its tokens.

As CLIP (Radford et al. 2021), but with a text encoder that is trained already and stays as it is (Zhai et al. 2022,
arXiv 2111.07991). A U-Net that has captions has little use for the tokens of an encoder that knows nothing yet, and
never teaches it.
"""

import open_clip
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor

from lvdm.models.ddpm3d import LatentVisualDiffusion
from lvdm.modules.encoders.condition import preprocess
from lvdm.training.optimization import Optimization, warmup_cosine


class ContrastiveTraining(LightningModule):
    """Each picture is to choose its caption among those of the batch. Trains `model.embedder`; the rest stands by."""

    def __init__(self, model: LatentVisualDiffusion, *, optimization: Optimization):
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.model.requires_grad_(False)
        self.model.embedder.requires_grad_(True)

    def training_step(self, batch: dict, index: int) -> Tensor:
        """`batch`: "pictures" (B, P, 3, H, W) in [-1, 1], P of each of B clips, and their "caption"s."""
        clip = self.model.embedder.model
        captions = sorted(set(batch["caption"]))
        pictures = batch["pictures"].flatten(0, 1)
        seen = F.normalize(clip.visual(preprocess(pictures, *clip.visual.image_size)), dim=-1)  # (B P, D)
        told = F.normalize(self.text_features(captions) @ clip.text_projection, dim=-1)  # (captions, D)
        logits = clip.logit_scale.exp().clamp(max=100) * seen @ told.mT
        target = torch.tensor([captions.index(caption) for caption in batch["caption"]], device=self.device)
        target = target.repeat_interleave(batch["pictures"].shape[1])
        loss = F.cross_entropy(logits, target)
        self.log_dict({"loss": loss, "right": (logits.argmax(1) == target).float().mean()}, prog_bar=True)
        return loss

    @torch.no_grad()
    def text_features(self, captions: list[str]) -> Tensor:
        """The feature (N, D) of each caption's last token, which has seen all the others."""
        tokens = open_clip.tokenize(captions)
        features = self.model.cond_stage_model.encode_tokens(tokens)
        return features[torch.arange(len(captions)), tokens.argmax(1)]

    def configure_optimizers(self) -> dict:
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        return warmup_cosine(trained, self.optimization)
