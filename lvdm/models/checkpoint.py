"""Read checkpoints of any published format without running code in them, and load them strictly."""

import pickle
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import omegaconf
import safetensors.torch
import torch
from omegaconf.base import ContainerMetadata, Metadata
from safetensors import SafetensorError
from torch import Tensor, nn

from lvdm.io.files import file_digest, whole_file

DEEPSPEED_PREFIX = "_forward_module."

# Harmless classes that Lightning checkpoints carry beside the tensors: plain data, read and thrown away.
HARMLESS = [
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.nodes.AnyNode,
    ContainerMetadata,
    Metadata,
    defaultdict,
    dict,
    list,
    int,
    Any,
]


@dataclass(frozen=True)
class Published:
    """Name a model on Hugging Face and the path where this program expects it."""

    repository: str
    filename: str
    path: str


PUBLISHED = {
    "base_512_v2": Published("VideoCrafter/VideoCrafter2", "model.ckpt", "videocrafter_models/base_512_v2/model.ckpt"),
    "Image2Video_512": Published(
        "VideoCrafter/Image2Video-512", "model.ckpt", "videocrafter_models/Image2Video_512/model.ckpt"
    ),
    "base_1024_v1": Published(
        "VideoCrafter/Text2Video-1024", "model.ckpt", "videocrafter_models/base_1024_v1/model.ckpt"
    ),
}


class WrongCheckpointError(ValueError):
    """Say that a file is a checkpoint, but of another model."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, memory-mapped where the format allows it.

    Understood are safetensors and PyTorch files holding a bare dict of tensors, {"state_dict": ...}, or DeepSpeed's
    {"module": ...} with its prefix. Pickled code is never run.

    Raises:
        FileNotFoundError: there is no such file; the message says where a published one can be had.
        ValueError: the file is truncated, not a checkpoint, or would run code.
    """
    path = Path(path)
    check_is_file(path)
    content = read_safetensors(path) if is_safetensors(path) else read_torch(path)
    for key in ("state_dict", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise ValueError(
            f"--ckpt_path {str(path)!r}: the file holds no weights (a dict of tensors, maybe under 'state_dict')"
        )
    if all(name.startswith(DEEPSPEED_PREFIX) for name in tensors):
        tensors = {name.removeprefix(DEEPSPEED_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def checkpoint_digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint file as hex digits; errors as of `read_state_dict` if there is none."""
    check_is_file(path)
    return file_digest(path)


def check_is_file(path: Path) -> None:
    """Raise FileNotFoundError or ValueError, with advice, if there is no checkpoint file at `path`."""
    if path.is_dir():
        raise ValueError(f"--ckpt_path {str(path)!r}: this is a folder; name the file in it")
    if not path.is_file():
        raise FileNotFoundError(missing_file_message(path))


def is_safetensors(path: Path) -> bool:
    """Return whether a file is safetensors, by its name or its beginning: a length of 8 bytes, then a JSON object."""
    with open(path, "rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, memory-mapped; ValueError if it cannot be read."""
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"--ckpt_path {str(path)!r}: not a readable safetensors file, or cut short ({error})"
        ) from error


def read_torch(path: Path) -> Any:
    """Return the content of a PyTorch file, on the CPU; ValueError if it is damaged or would run code."""
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on unusual pickles; what cannot be read is an error below
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # a file of before torch 1.6
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"--ckpt_path {str(path)!r}: refused, because reading the file would run code that comes with it "
                f"({found[1]}); ask for a file in the safetensors format"
            ) from error
        raise ValueError(f"--ckpt_path {str(path)!r}: not a PyTorch checkpoint, or damaged") from error
    except (RuntimeError, EOFError, KeyError, IndexError, AttributeError, TypeError, OSError, ValueError) as error:
        raise ValueError(
            f"--ckpt_path {str(path)!r}: not a PyTorch checkpoint, or cut short ({path.stat().st_size:,} bytes); "
            f"fetch it again"
        ) from error


def missing_file_message(path: Path) -> str:
    """Say that there is no checkpoint at `path`, and where a published one can be had."""
    for name, model in PUBLISHED.items():
        if path.parts[-2:] == Path(model.path).parts[-2:]:
            return (
                f"--ckpt_path {str(path)!r}: there is no such file; it is published at "
                f"https://huggingface.co/{model.repository} ({model.filename}), and "
                f"'python scripts/download_models.py {name}' fetches it to {model.path}"
            )
    names = ", ".join(PUBLISHED)
    return (
        f"--ckpt_path {str(path)!r}: there is no such file; "
        f"'python scripts/download_models.py NAME' fetches a published one ({names})"
    )


@dataclass(frozen=True)
class Differences:
    """List how a state_dict differs from what a model expects: names, with both shapes where they disagree."""

    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    @classmethod
    def between(cls, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> "Differences":
        """Compare the tensors that a model expects with those that were found, by name and shape."""
        reshaped = [
            f"{name} (file {list(found[name].shape)}, model {list(tensor.shape)})"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ]
        return cls([n for n in expected if n not in found], [n for n in found if n not in expected], reshaped)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return "; ".join(
            f"{len(names)} keys {kind}"
            + (f": {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "")
            for kind, names in kinds.items()
        )


def load_strictly(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Replace `model`'s tensors by those of `state`, without a copy; WrongCheckpointError unless all fit."""
    differences = Differences.between(model.state_dict(), state)
    if differences:
        raise WrongCheckpointError(str(differences))
    model.load_state_dict(state, assign=True)


def save_half(model: nn.Module, path: str | Path, *, prefix: str = "") -> None:
    """Write `model`'s weights in fp16, buffers in fp32, as {"state_dict": ...}; the file is whole or not there.

    prefix: with which the names of those that are written begin.
    """
    buffers = {name for name, _ in model.named_buffers()}
    state = {
        name: tensor.detach().cpu().to(torch.float32 if name in buffers else torch.float16).clone()
        for name, tensor in model.state_dict().items()
        if name.startswith(prefix)
    }
    with whole_file(Path(path)) as partial:
        torch.save({"state_dict": state}, partial)
