"""What videos are measured with: the window of a curve, encoders, a reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvdm.io.frames import UnreadableVideoError, fingerprint, read_frames
from lvdm.runtime.progress import print_above

if TYPE_CHECKING:  # torch takes 500 MB and seconds: it is imported only where it is needed
    import torch

    from lvdm.evaluation.encoders import ClipEncoder, LatentEncoder

WINDOW = 16  # frames: the length that VideoCrafter models are trained on


@dataclass(frozen=True)
class Instruments:
    """What videos are measured with.

    Args:
        window: frames to a point of a curve.
        clip: CLIP; None leaves out the metrics that need it. The same holds for `latents`.
        latents: the encoder of a VAE.
        reference: the video that SSIM compares with.
        settings: JSON values that differ between instruments whose results differ; part of a cache key.
    """

    window: int = WINDOW
    clip: "ClipEncoder | None" = None
    latents: "LatentEncoder | None" = None
    reference: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """Return the names of the encoders, for a report."""
        encoders = {"CLIP encoder": self.clip, "latents": self.latents}
        return {kind: encoder.name for kind, encoder in encoders.items() if encoder}

    @property
    def left_out(self) -> dict[str, str]:
        """Return the metrics that no video can have with these instruments, and why."""
        clip = "no CLIP weights (--clip_weights, or --config of an image-to-video model)"
        reasons = {
            "ssim_to_reference": "" if self.reference else "no --reference",
            "background_consistency": "" if self.clip else clip,
            "clip_patch_consistency": "" if self.clip else clip,
            "clip_f": "" if self.clip else clip,
            "text_alignment": clip if self.clip is None else self.clip.why_no_text,
            "latent_consistency": "" if self.latents else "no --config of a model with a VAE",
        }
        return {name: reason for name, reason in reasons.items() if reason}


def load_instruments(
    *,
    window: int,
    reference: Path | None,
    clip_weights: Path | None,
    clip_arch: str,
    config: Path | None,
    ckpt_path: Path | None,
    device: str | None,
) -> Instruments:
    """Load what the flags of the same names ask for.

    Args:
        device: None for CUDA, or a CPU where there is no CUDA.

    Raises:
        ValueError, FileNotFoundError: the message names the flag.
    """
    if window < 2:
        raise ValueError(f"--window {window}: must be at least 2 frames")
    if ckpt_path and not config:
        raise ValueError(f"--ckpt_path {str(ckpt_path)!r}: needs --config, the configuration of its model")
    if reference:
        _check_reference(reference)
    clip = latents = None
    files = [clip_weights, config, ckpt_path, reference]
    if clip_weights or config:
        from lvdm.evaluation.encoders import model_encoders, open_clip_encoder

        chosen = _find_device(device)
        print_above("loading the encoders")
        if config:
            latents, clip = model_encoders(config, ckpt_path, device=chosen)
            files.append(latents.path)
        if clip_weights:
            clip = open_clip_encoder(clip_weights, clip_arch, device=chosen)
            files += [arch] if (arch := Path(clip_arch)).is_file() else []
    settings = {"files": [[str(file.resolve()), fingerprint(file)] for file in files if file], "arch": clip_arch}
    return Instruments(window, clip, latents, reference, settings)


def _check_reference(reference: Path) -> None:
    if not reference.exists():
        raise FileNotFoundError(f"--reference {str(reference)!r}: there is no such video")
    try:
        next(read_frames(reference))
    except UnreadableVideoError as error:
        raise ValueError(f"--reference {error}") from error


def _find_device(name: str | None) -> "torch.device":
    import torch

    try:
        return torch.zeros(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: this torch was built without CUDA
        raise ValueError(f"--device {name!r}: allowed are cpu, and cuda or cuda:N where there is a GPU") from error
