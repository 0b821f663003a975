"""Set what torch keeps for the whole process, and put it back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def process_settings(device: torch.device, *, allow_tf32: bool) -> Iterator[None]:
    """Set threads and TF32 within this context, for the thread that computes on `device` and its workers.

    On a CPU the calling thread gets one core: the idle threads of its pool would spin and take the workers' time.

    allow_tf32: whether convolutions on CUDA may round what they multiply to 10 bits.
    """
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = tf32
