"""Compile a U-Net with torch."""

from threading import Lock

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from lvdm.runtime.errors import one_line
from lvdm.runtime.progress import print_above


class Compiled:
    """Call a U-Net through fused kernels, which torch compiles once for every shape of batch.

    When threads meet a new shape at the same time, one compiles it and the others wait. Taps on attentions
    (lvdm/sampling/taps/query_reuse.py) are compiled with the rest.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.forward = torch.compile(unet, dynamic=False, fullgraph=True)
        self.known: set[tuple[torch.Size, ...]] = set()
        self.lock = Lock()

    def __call__(self, *batch: Tensor) -> Tensor:
        """Return unet(*batch); ValueError that names --compile if torch cannot compile on this machine."""
        shapes = tuple(tensor.shape for tensor in batch)
        if shapes in self.known:
            return self.forward(*batch)
        with self.lock:
            if shapes not in self.known:
                print_above(f"compiling the U-Net for batches of {tuple(shapes[0])}: a minute or more")
            try:
                output = self.forward(*batch)
            except TorchDynamoException as error:
                reason = one_line(error)[:300]
                raise ValueError(f"--compile: torch cannot compile on this machine ({reason}); leave it out") from error
            self.known.add(shapes)
        return output
