"""Encode pictures as latents and decode latents as pictures."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lvdm.modules.networks.ae_modules import AutoencoderShape, Decoder, Encoder


@dataclass(frozen=True)
class DiagonalGaussian:
    """Hold what the encoder predicts: mean and log variance of every latent number, both (B, C, h, w)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> "DiagonalGaussian":
        """Split an encoder's output (B, 2 C, h, w) into mean and log variance."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def std(self) -> Tensor:
        """The standard deviation, (B, C, h, w)."""
        return (0.5 * self.logvar).exp()

    def sample(self, noise: Tensor) -> Tensor:
        """Return a sample, from noise (B, C, h, w) ~ N(0, I)."""
        return self.mean + self.std * noise

    def kl(self) -> Tensor:
        """Return the divergence from the standard normal distribution, in nats for each latent number, (B, C, h, w)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar)


class AutoencoderKL(nn.Module):
    """Encode pictures (B, 3, H, W) in [-1, 1] as latents (B, embed_dim, H/factor, W/factor), and decode these.

    The factor is 2 for each level of `ddconfig.ch_mult` but one. `monitor`, `lossconfig`, `ckpt_path`, `ignore_keys`,
    and `image_key` are what VideoCrafter's YAML files may name for training; they change nothing here.
    """

    def __init__(
        self,
        ddconfig: Mapping,
        lossconfig: Mapping | None = None,
        embed_dim: int = 4,
        monitor: str | None = None,
        ckpt_path: str | None = None,
        ignore_keys: tuple[str, ...] = (),
        image_key: str = "image",
    ):
        super().__init__()
        shape = AutoencoderShape(**ddconfig)
        if not shape.double_z:
            raise ValueError("AutoencoderKL: double_z: false is not supported; a posterior has a mean and a variance")
        self.downsampling = 2 ** (len(shape.ch_mult) - 1)
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.quant_conv = nn.Conv2d(2 * shape.z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, shape.z_channels, 1)

    def encode(self, pictures: Tensor) -> DiagonalGaussian:
        """Return the posterior of the latents of pictures (B, 3, H, W)."""
        return DiagonalGaussian.from_moments(self.quant_conv(self.encoder(pictures)))

    def decode(self, latents: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W) of latents (B, embed_dim, h, w)."""
        return self.decoder(self.post_quant_conv(latents))
