"""Make videos of any length from 3D U-Net diffusion models.

from lvdm import generate, load_model

for frame in generate(load_model(), "a red circle moving right on a black background", frames=100):
    ...  # (H, W, 3) uint8
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvdm.pipeline.generate import Model, generate, load_model
    from lvdm.pipeline.options import Options

__all__ = ["Model", "Options", "generate", "load_model"]

_HOMES = {"Model": "generate", "Options": "options", "generate": "generate", "load_model": "generate"}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: torch takes seconds, and not every command needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lvdm' has no attribute {name!r}")
    return getattr(import_module(f"lvdm.pipeline.{_HOMES[name]}"), name)
