"""Encoders for the metrics: CLIP's two towers and the encoder of a VAE, with weights from the user's files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from lvdm.io.configs import read_config
from lvdm.io.images import as_tensor
from lvdm.models.checkpoint import WrongCheckpointError, load_strictly, read_state_dict
from lvdm.models.loading import instantiate_from_config
from lvdm.modules.encoders.condition import clip_model

TEXT, IMAGE, FIRST_STAGE = "cond_stage_model.model.", "embedder.model.", "first_stage_model."


@dataclass(frozen=True)
class ClipEncoder:
    """CLIP's image tower and, if it is known, its text tower; `name` is for reports."""

    name: str
    visual: VisionTransformer
    text: open_clip.CLIP | None

    @property
    def why_no_text(self) -> str:
        """Return why text alignment cannot be measured; empty if it can."""
        return "" if self.text else f"no text tower belongs to the {self.name}"

    @torch.inference_mode()
    def encode_frames(self, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the image embeddings (N, D) and the means of the patch tokens (N, W), of length 1, of N frames.

        Frames are prepared as VBench does: the shorter side is resized to the tower's size, bicubic, without
        antialiasing, rounded to whole levels; then the centre square is cut out. Patch tokens are taken after the
        last norm.

        Args:
            frames: (H, W, 3) uint8 each.
        """
        weight = self.visual.conv1.weight
        side = self.visual.image_size[0]
        x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(weight.device)
        x = transforms.resize(x, [side], interpolation=transforms.InterpolationMode.BICUBIC, antialias=False)
        x = transforms.center_crop(x, [side]).float() / 255
        x = transforms.normalize(x, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        embeddings, tokens = self.visual(x)  # (N, D), (N, patches, W)
        return _unit(embeddings), _unit(tokens.mean(1))

    @torch.inference_mode()
    def encode_prompt(self, prompt: str) -> np.ndarray:
        """Return the embedding (D,) of a prompt, of length 1; tokens beyond the tower's context are cut off."""
        tokens = open_clip.tokenize([prompt], self.text.context_length)
        return _unit(self.text.encode_text(tokens.to(self.text.token_embedding.weight.device)))[0]


@dataclass(frozen=True)
class LatentEncoder:
    """The encoder of a model's VAE, from the checkpoint at `path`."""

    name: str
    path: Path
    first_stage: nn.Module

    @torch.inference_mode()
    def encode_frames(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """Return the latents (N, D), of length 1, of N frames: the posteriors' means, flattened.

        Frames whose sides the VAE cannot take are cut at the right and at the bottom.

        Args:
            frames: (H, W, 3) uint8 each.
        """
        weight, step = self.first_stage.quant_conv.weight, self.first_stage.downsampling
        height, width = (side // step * step for side in frames[0].shape[:2])
        latents = []
        for frame in frames:  # one by one, since a VAE needs much memory for a frame
            x = as_tensor(frame[None, :height, :width]).to(weight)
            latents.append(self.first_stage.encode(x).mean.flatten(1))
        return _unit(torch.cat(latents))


def open_clip_encoder(weights: Path, arch: str, *, device: torch.device) -> ClipEncoder:
    """Load an OpenCLIP model from its weights, or from the checkpoint of an image-to-video model that contains them.

    Args:
        arch: a name that open_clip knows, or the path of a JSON file with a configuration.

    Raises:
        FileNotFoundError, ValueError: the message names --clip_weights or --clip_arch.
    """
    where = f"--clip_weights {str(weights)!r}"
    if not weights.is_file():
        raise FileNotFoundError(f"{where}: there is no such file")
    try:
        state = read_state_dict(weights)
    except ValueError as error:
        raise ValueError(
            f"{where}: its weights cannot be read; allowed are safetensors files and PyTorch files of tensors, as "
            "open_clip writes them (a TorchScript archive, such as OpenAI's, is a program and is not run)"
        ) from error
    if any(name.startswith(IMAGE) for name in state):
        image, text = _below(state, IMAGE + "visual."), _below(state, TEXT)
    else:
        image = _below(state, "visual.")
        text = {name: tensor for name, tensor in state.items() if not name.startswith("visual.")}
    architecture = _architecture(arch)
    try:
        visual, words = _image_tower(architecture, image), _text_tower(architecture, text)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where}: does not fit --clip_arch {arch!r}: {error}") from error
    return ClipEncoder(f"{Path(arch).stem} ({weights.name})", visual.to(device), words.to(device))


def model_encoders(
    config: Path, ckpt_path: Path | None, *, device: torch.device
) -> tuple[LatentEncoder, ClipEncoder | None]:
    """Load the VAE of a model and, if it takes images, its CLIP; its U-Net is not loaded.

    The text tower is left out if it belongs to another CLIP than the image tower, since their embeddings cannot be
    compared.

    Args:
        ckpt_path: None for the one that the config names.

    Raises:
        FileNotFoundError, ValueError: the message names --config or --ckpt_path.
    """
    content = read_config(config)
    ckpt_path = ckpt_path or (content.get("inference") or {}).get("ckpt_path")
    if ckpt_path is None:
        raise ValueError(f"--config {str(config)!r} has no inference.ckpt_path; give --ckpt_path")
    try:
        params = content["model"]["params"]
        first_stage = params["first_stage_config"]
    except (KeyError, TypeError):
        raise ValueError(f"--config {str(config)!r}: there is no model.params.first_stage_config") from None
    state = read_state_dict(ckpt_path)
    with torch.device("meta"):
        autoencoder = instantiate_from_config(first_stage)
    name = f"{config.stem} ({Path(ckpt_path).name})"
    try:
        _load(autoencoder, _below(state, FIRST_STAGE))
        clip = None
        if params.get("cond_img_config"):
            arch, text_arch = (
                (params[part].get("params") or {}).get("arch", "ViT-H-14")
                for part in ("cond_img_config", "cond_stage_config")
            )
            visual = _image_tower(arch, _below(state, IMAGE + "visual."))
            words = _text_tower(text_arch, _below(state, TEXT)).to(device) if text_arch == arch else None
            kind = arch if isinstance(arch, str) else "image tower"
            clip = ClipEncoder(f"{kind} of {name}", visual.to(device), words)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"--ckpt_path {str(ckpt_path)!r}: does not fit --config {str(config)!r}: {error}") from error
    return LatentEncoder(f"VAE of {name}", Path(ckpt_path), autoencoder.to(device)), clip


def _architecture(arch: str) -> str | Mapping[str, Any]:
    if not arch.endswith(".json"):
        if open_clip.get_model_config(arch) is None:
            raise ValueError(
                f"--clip_arch {arch!r}: open_clip has no such model; allowed are its names, such as 'ViT-H-14' or "
                "'ViT-B-32-quickgelu', and JSON files with a configuration"
            )
        return arch
    try:
        content = json.loads(Path(arch).read_text(encoding="utf-8"))
        return content.get("model_cfg", content)
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"--clip_arch {arch!r}: not a JSON file with a configuration ({error})") from error


def _image_tower(arch: str | Mapping[str, Any], state: Mapping[str, Tensor]) -> VisionTransformer:
    with torch.device("meta"):
        visual = clip_model(arch).visual
    if not isinstance(visual, VisionTransformer):
        raise ValueError("its image tower is not a vision transformer")
    visual.output_tokens = True
    return _load(visual, state)


def _text_tower(arch: str | Mapping[str, Any], state: Mapping[str, Tensor]) -> open_clip.CLIP:
    with torch.device("meta"):
        model = clip_model(arch)
    del model.visual
    length = model.positional_embedding.shape[0]
    model.attn_mask = torch.full((length, length), float("-inf")).triu(1)  # on the meta device it has no values
    return _load(model, state)


def _load(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give a module on the meta device the weights of `state`, in fp32, and return it for inference."""
    if not state:
        raise WrongCheckpointError("the file has no weights of it")
    load_strictly(module, state)
    return module.float().eval().requires_grad_(False)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _unit(vectors: Tensor) -> np.ndarray:
    """Normalize vectors (N, D) to length 1."""
    return F.normalize(vectors.float(), dim=-1).cpu().numpy()
