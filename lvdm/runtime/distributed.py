"""Share one video among the processes that torchrun starts: each rank computes some windows of every pass.

Every rank holds the same queue and takes the same steps. What one rank computed is sent to all before the next step.
Ranks that share prompts instead make their videos independently, and exit together.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock, Thread
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lvdm.runtime.errors import reason
from lvdm.runtime.progress import print_above

T = TypeVar("T")
UNLIMITED = timedelta(days=30)  # a timeout; Gloo adds it to the time of day, so it cannot be infinite
LEAVE_TIMEOUT = 5.0  # seconds that a rank that failed waits for the one it watches
FATAL_ERROR = Lock()  # held by the thread that reports one and ends the process


class RankError(RuntimeError):
    """This rank failed alone, while the others wait for its results."""


class SharedError(ValueError):
    """Rank 0 failed at something that it did for all. It is raised on every rank, so all are still in step."""


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `size` ones. Rank 0 prints and writes files for all."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """Return which of `total` rows this rank computes."""
        each = -(-total // self.size)
        return slice(min(self.rank * each, total), min((self.rank + 1) * each, total))

    def gather(self, mine: Tensor, total: int) -> Tensor:
        """Return all `total` rows (B, ...) on every rank, given that `mine` are this rank's share."""
        if self.size == 1:
            return mine
        each = -(-total // self.size)
        padded = mine.new_zeros(each, *mine.shape[1:])
        padded[: len(mine)] = mine
        gathered = mine.new_empty(self.size * each, *mine.shape[1:])
        with _exit_if_a_rank_is_lost():
            dist.all_gather_into_tensor(gathered, padded)
        return gathered[:total]

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 only and return its result on every rank; if it raises there, all raise SharedError."""
        if self.size == 1:
            return make()
        value, why, failure = None, None, None
        if self.first:
            try:
                value = make()
            except Exception as error:
                why, failure = reason(error), error
        answer = [value, why]
        with _exit_if_a_rank_is_lost():
            dist.broadcast_object_list(answer)
        value, why = answer
        if why is not None:
            raise SharedError(why) from failure
        return value

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set on any rank."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        with _exit_if_a_rank_is_lost():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())


ALONE = Ranks()


@contextmanager
def _exit_if_a_rank_is_lost() -> Iterator[None]:
    """End this process at once if torch.distributed raises an error within this block.

    An orderly exit would wait for the GPU, whose pending work waits for the lost rank. What was saved is on the disk.
    """
    try:
        yield
    except RuntimeError as error:
        FATAL_ERROR.acquire()
        print_above(f"error: another rank is gone; its torchrun names it ({reason(error)})")
        os._exit(1)


@contextmanager
def ranks_of(device: torch.device, *, wanted: bool) -> Iterator[Ranks]:
    """Yield the ranks that torchrun started, or this process alone.

    Tensors on CUDA go through NCCL, others through Gloo. Ranks wait for one another for up to half an hour, because one
    may still load the model, compile, or compute on a slow CPU. A rank that dies is noticed at once, because each
    watches the next one; a machine that disappears from the network is noticed after that half hour.

    Args:
        device: where this rank computes.
        wanted: whether ranks share a video.
    """
    if not wanted or world_size() == 1:
        yield ALONE
        return
    backends = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backends = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backends, timeout=timedelta(minutes=30))  # torch has one for both
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    watchdog = PeerWatchdog(ranks)
    try:
        yield ranks
    except RankError:
        raise  # without telling the peer that watches this rank, so that all end
    except BaseException:
        watchdog.end(timeout=LEAVE_TIMEOUT)  # the others may go on
        raise
    watchdog.end()
    dist.destroy_process_group()


class PeerWatchdog:
    """End this process when the next rank is gone (that of the last is the first), so that all end one by one.

    NCCL alone may wait half an hour for a rank that died.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.group = dist.new_group(backend="gloo", timeout=UNLIMITED)
        self.thread = Thread(target=self._wait_for_peer, daemon=True)
        self.thread.start()

    def _wait_for_peer(self) -> None:
        """Wait for the message that the next rank sends when it ends as it should."""
        with _exit_if_a_rank_is_lost():
            dist.recv(torch.empty(1), src=(self.ranks.rank + 1) % self.ranks.size, group=self.group)

    def end(self, *, timeout: float | None = None) -> None:
        """Tell the rank that watches this one that it ends, and wait for the next one, at most `timeout` seconds."""
        with suppress(RuntimeError):  # that rank is gone itself
            dist.send(torch.zeros(1), dst=(self.ranks.rank - 1) % self.ranks.size, group=self.group)
        self.thread.join(timeout)


@contextmanager
def leaving_together(*, wanted: bool) -> Iterator[None]:
    """Wait at the end of this block for the other processes that torchrun started, if it is `wanted`.

    torchrun ends all processes as soon as one has an exit status other than 0, and one video that failed is enough for
    that. Ranks that died or were stopped are not waited for; a signal ends a rank that waits.
    """
    if not wanted or world_size() == 1:
        yield
        return
    dist.init_process_group("gloo", timeout=UNLIMITED)
    try:
        yield
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would only be called after the wait
        with suppress(RuntimeError):  # one is gone
            dist.barrier()
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Return how many processes torchrun started, on all machines together; 1 without it."""
    return _of_torchrun("WORLD_SIZE", alone=1)


def global_rank() -> int:
    """Return the number of this process among all that torchrun started."""
    return _of_torchrun("RANK", alone=0)


def local_rank() -> int:
    """Return the number of this process among those of this machine."""
    return _of_torchrun("LOCAL_RANK", alone=0)


def local_world_size() -> int:
    """Return how many processes torchrun started on this machine."""
    return _of_torchrun("LOCAL_WORLD_SIZE", alone=1)


def _of_torchrun(name: str, *, alone: int) -> int:
    given = os.environ.get(name, str(alone))
    if not given.isdecimal():
        raise ValueError(f"{name} is {given!r} in the environment, where torchrun puts a number; unset it")
    return int(given)
