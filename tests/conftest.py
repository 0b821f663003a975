"""What the tests share: the reference vectors and the weights they were made with."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
sys.path.insert(0, str(ROOT))
torch.set_num_threads(min(2, torch.get_num_threads()))


def golden(name: str) -> dict[str, Tensor]:
    """A file of reference vectors as tensors; scalars are tensors without axes, texts stay NumPy arrays."""
    with np.load(DATA / "golden" / name) as file:
        return {key: torch.from_numpy(value) if value.dtype.kind != "U" else value for key, value in file.items()}


def golden_json(name: str) -> dict:
    return json.loads((DATA / "golden" / name).read_text())


def with_golden_weights(module: nn.Module, prefix: str) -> nn.Module:
    """`module` with the weights of the reference vectors: a function of each parameter's full name (REFERENCE 7)."""
    for name, parameter in module.named_parameters():
        generator = np.random.default_rng(zlib.crc32((prefix + name).encode()))
        weight = generator.standard_normal(tuple(parameter.shape))
        if parameter.ndim >= 2:
            weight = weight / np.sqrt(np.prod(parameter.shape[1:]))
        else:
            weight = 0.05 * weight + (1 if name.endswith(".weight") else 0)
        parameter.data = torch.from_numpy(np.asarray(weight, dtype=np.float32))
    return module.eval()


def assert_agrees(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """max |ours - theirs| <= tolerance * max |theirs|."""
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    assert difference <= tolerance, f"differs by {difference:.2e} of the largest value, allowed is {tolerance:.0e}"


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield
