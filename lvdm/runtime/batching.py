"""Compute a batch in parts: as many rows as fit into memory, or a part on each core of a CPU.

A small U-Net is fastest on a CPU when every core computes a part of its own.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from lvdm.runtime.cpu import usable_cores
from lvdm.runtime.distributed import local_world_size
from lvdm.runtime.grad_mode import in_this_grad_mode
from lvdm.runtime.progress import print_above

SHARES = 4  # parts of a batch on a CPU, however many cores it has: how a batch is cut changes how sums are rounded


class DeviceMemory(Protocol):
    """Tell how many rows of a batch fit into a device's memory."""

    def watch(self) -> None:
        """Begin to observe how much memory rows take."""

    def fitting(self, rows: int) -> int:
        """Return how many rows would fit, given that what was observed since `watch` was for `rows` at a time."""


class Workers:
    """Compute a function of a batch in parts. The rows of the batch must not depend on one another.

    All parts have the same size. They consist of whole pairs of rows, because the two halves of guidance have work in
    common, unless that would make them less than half as large. How a batch is cut does not depend on the number of
    workers.
    """

    def __init__(
        self, shares: int = 1, *, rows: int | None = None, run: Callable = map, memory: DeviceMemory | None = None
    ) -> None:
        """Set how batches are cut.

        Args:
            shares: How many parts there are at least, if the batch has as many rows.
            rows: How many rows a part has at most. None for as many as fit, which `memory` is asked after a first batch
                in parts of two; without `memory` there is no limit.
            run: A `map` that computes the parts, of a thread pool for example.
            memory: The device's.
        """
        self.shares = shares
        self.rows = rows
        self.run = run
        self.memory = memory

    @property
    def undecided(self) -> bool:
        """Whether the next batch is the one that shows how many rows fit."""
        return self.rows is None and self.memory is not None

    def __call__(self, function: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        """Return function(*batch) for tensors (B, ...). When memory runs out, parts are halved for good."""
        total = len(batch[0])
        memory = self.memory if self.undecided else None
        function = in_this_grad_mode(function)
        while True:
            size = self._part_size(total, self.rows or (2 if memory else total))  # two are the halves of a window
            if memory:
                memory.watch()
            try:
                output = torch.cat(list(self.run(function, *(tensor.split(size) for tensor in batch))))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise torch.OutOfMemoryError(f"not even half a window fits into memory ({error})") from error
            else:
                if memory and self.rows is None:
                    self.rows = max(1, memory.fitting(size))
                return output
            self.rows = size // 2
            print_above(
                f"warning: out of memory with {size} rows in one forward (with guidance a window has two); "
                f"goes on with {self.rows}"
            )

    def _part_size(self, total: int, rows: int) -> int:
        """Return the largest size of equal parts of at most `rows` rows; an even one if it is not much smaller."""
        parts = max(self.shares, math.ceil(total / rows))
        sizes = [size for size in range(math.ceil(total / parts), 0, -1) if total % size == 0]
        return next((size for size in sizes if size % 2 == 0 and 2 * size > sizes[0]), sizes[0])


class CudaMemory:
    """The memory of a CUDA device, as PyTorch's allocator reports it."""

    RESERVE = 0.1  # share of the free memory that is left for fragments, the VAE, and other shapes

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0

    def watch(self) -> None:
        """Begin to observe the allocator's peak."""
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)

    def fitting(self, rows: int) -> int:
        """Return how many rows fit by the peak since `watch`, when `rows` were computed at a time."""
        each = (torch.cuda.max_memory_allocated(self.device) - self.before) / rows
        free, _ = torch.cuda.mem_get_info(self.device)
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int((1 - self.RESERVE) * (free + unused) / each)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether a device or the system ran out of memory. torch has its own exception only for some cases."""
    words = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


@contextmanager
def workers_of(device: torch.device, *, rows: int | None) -> Iterator[Workers]:
    """Yield the workers for a device.

    On a CPU these are threads, SHARES at most, among which the usable cores are divided; process_settings leaves the
    calling thread one core. On any other device it is the device itself.

    Args:
        device: where the batches are.
        rows: how many rows a part has at most; None for as many as fit.
    """
    if device.type != "cpu":
        yield Workers(rows=rows, memory=CudaMemory(device) if device.type == "cuda" else None)
        return
    cores = max(1, usable_cores() // local_world_size())  # torchrun's other processes use the rest
    each = max(1, cores // SHARES)
    with ThreadPoolExecutor(min(cores, SHARES), initializer=torch.set_num_threads, initargs=(each,)) as threads:
        # 4 rows of the embedded model fit into a core's cache.
        yield Workers(SHARES, rows=rows or 4, run=threads.map)
