"""Who runs the parts of a batch: one device, or the cores of a CPU, which each run a small U-Net best on their own."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from lvdm.runtime.cpu import usable_cores
from lvdm.runtime.distributed import local_world_size
from lvdm.runtime.progress import print_above

SHARES = 4  # of a batch on a CPU, however many cores it has: how a batch is cut changes how sums are rounded


class DeviceMemory(Protocol):
    """What tells how many rows of a batch fit into a device's memory."""

    def watch(self) -> None:
        """From here on the rows are computed that `fitting` is about."""

    def fitting(self, rows: int) -> int:
        """How many would fit, if what was allocated since `watch` was for `rows` rows at a time."""


class Workers:
    """Computes a function of a batch, whose rows do not depend on one another, in parts.

    A batch is cut into equal parts, `shares` or more if it has as many rows, of at most `rows` rows each, and of whole
    pairs of rows, which may have work in common, where parts need not be half as large for that. None is as many as
    fit, for which `memory` is asked after a first batch in parts of two; without it, no limit. `run` is a `map` that
    workers share. How a batch is cut does not depend on how many workers there are.
    """

    def __init__(
        self, shares: int = 1, *, rows: int | None = None, run: Callable = map, memory: DeviceMemory | None = None
    ) -> None:
        self.shares = shares
        self.rows = rows
        self.run = run
        self.memory = memory

    @property
    def undecided(self) -> bool:
        """Whether the next batch is the one that shows how many rows fit."""
        return self.rows is None and self.memory is not None

    def __call__(self, function: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        """function(*batch), each (N, ...). If a part takes more memory than there is, parts are halved for good."""
        total = len(batch[0])
        asked = self.memory if self.undecided else None
        function = in_mode_of_caller(function)
        while True:
            rows = self.rows or (2 if asked else total)  # two are the halves of a window
            parts = max(self.shares, math.ceil(total / rows))
            sizes = [size for size in range(math.ceil(total / parts), 0, -1) if total % size == 0]
            size = next((size for size in sizes if size % 2 == 0 and 2 * size > sizes[0]), sizes[0])
            if asked:
                asked.watch()
            try:
                output = torch.cat(list(self.run(function, *(tensor.split(size) for tensor in batch))))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise torch.OutOfMemoryError(f"not even half a window fits into memory ({error})") from error
            else:
                if asked and self.rows is None:
                    self.rows = max(1, asked.fitting(size))
                return output
            self.rows = size // 2
            print_above(
                f"warning: out of memory with {size} rows in one forward (with guidance a window has two); "
                f"goes on with {self.rows}"
            )


class CudaMemory:
    """The memory of a CUDA device, by what PyTorch's allocator says (never run here: no GPU was to be had)."""

    SPARED = 0.1  # of what is free: for fragments, the VAE, and other shapes

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0

    def watch(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)

    def fitting(self, rows: int) -> int:
        each = (torch.cuda.max_memory_allocated(self.device) - self.before) / rows
        free, _ = torch.cuda.mem_get_info(self.device)
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int((1 - self.SPARED) * (free + unused) / each)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the system, had no memory left: torch has an exception of its own for its CUDA allocator."""
    words = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


@contextmanager
def workers_of(device: torch.device, *, rows: int | None) -> Iterator[Workers]:
    """Yield the workers of a device: on a CPU a thread for each core, in which torch uses that core alone.

    Beyond SHARES cores, torch uses several in each thread. Other devices compute a batch at once.

    rows: at most so many rows of a batch in a part; None for as many as fit.
    """
    if device.type != "cpu":
        yield Workers(rows=rows, memory=CudaMemory(device) if device.type == "cuda" else None)
        return
    cores = max(1, usable_cores() // local_world_size())  # torchrun's other processes have theirs
    each = max(1, cores // SHARES)
    with ThreadPoolExecutor(min(cores, SHARES), initializer=torch.set_num_threads, initargs=(each,)) as threads:
        # 4 rows of the embedded model stay in a core's cache.
        yield Workers(SHARES, rows=rows or 4, run=threads.map)


def in_mode_of_caller(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `function` for other threads, with the caller's inference and gradient modes, which each thread has."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def call(*arguments: Tensor) -> Tensor:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return function(*arguments)

    return call
