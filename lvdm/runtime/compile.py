"""A U-Net compiled by torch."""

from threading import Lock

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from lvdm.runtime.progress import print_above


class Compiled:
    """Computes what `unet` does, with fused kernels that torch makes for every shape of batch that it meets.

    Threads that meet a new shape at the same time wait for the one that compiles it, instead of doing the same. Taps on
    attentions (lvdm/sampling/taps/query_reuse.py) are compiled with the rest.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.forward = torch.compile(unet, dynamic=False, fullgraph=True)
        self.known: set[tuple[torch.Size, ...]] = set()
        self.lock = Lock()

    def __call__(self, *batch: Tensor) -> Tensor:
        shapes = tuple(tensor.shape for tensor in batch)
        if shapes in self.known:
            return self.forward(*batch)
        with self.lock:
            if shapes not in self.known:
                print_above(f"compiling the U-Net for batches of {tuple(shapes[0])}: a minute or more")
            try:
                output = self.forward(*batch)
            except TorchDynamoException as error:
                reason = " ".join(str(error).split())[:300]
                raise ValueError(f"--compile: torch cannot compile on this machine ({reason}); leave it out") from error
            self.known.add(shapes)
        return output
