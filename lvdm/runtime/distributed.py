"""Several processes, one video: the ranks that torchrun starts share the windows of every pass.

Every rank holds the same queue and takes the same steps; what one of them computed reaches all before the next step.
Ranks that share prompts instead make their videos alone, and leave together.
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
ENDLESS = timedelta(days=30)  # of waiting; Gloo adds it to the time of day
MOMENT = 5.0  # seconds
LAST_WORDS = Lock()  # whose are they


class RankError(RuntimeError):
    """This rank failed alone: the others wait for what does not come."""


class SharedError(ValueError):
    """What rank 0 failed at for all, on each of them: they are still in step."""


@dataclass(frozen=True)
class Ranks:
    """This process's rank among `size`. Rank 0 speaks and writes for all."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, total: int) -> slice:
        """Which of `total` rows are this rank's."""
        each = -(-total // self.size)
        return slice(min(self.rank * each, total), min((self.rank + 1) * each, total))

    def gather(self, mine: Tensor, total: int) -> Tensor:
        """All `total` rows (N, ...), of which `mine` are this rank's share."""
        if self.size == 1:
            return mine
        each = -(-total // self.size)
        padded = mine.new_zeros(each, *mine.shape[1:])
        padded[: len(mine)] = mine
        gathered = mine.new_empty(self.size * each, *mine.shape[1:])
        with _all_there():
            dist.all_gather_into_tensor(gathered, padded)
        return gathered[:total]

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, where alone it is called. If it raises there, all raise SharedError."""
        if self.size == 1:
            return make()
        value, why, failure = None, None, None
        if self.first:
            try:
                value = make()
            except Exception as error:
                why, failure = reason(error), error
        answer = [value, why]
        with _all_there():
            dist.broadcast_object_list(answer)
        value, why = answer
        if why is not None:
            raise SharedError(why) from failure
        return value

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        with _all_there():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())


ALONE = Ranks()


@contextmanager
def _all_there() -> Iterator[None]:
    """Ends this process if torch.distributed raises something in this context.

    At once: what a GPU has under way waits for the lost rank, too, and to leave in order is to wait for the GPU. What
    was saved is on the disk.
    """
    try:
        yield
    except RuntimeError as error:
        LAST_WORDS.acquire()
        print_above(f"error: another rank is gone; its torchrun names it ({reason(error)})")
        os._exit(1)


@contextmanager
def ranks_of(device: torch.device, *, wanted: bool) -> Iterator[Ranks]:
    """The ranks that torchrun started, if several are `wanted` for one video; else this process alone.

    Tensors on CUDA go through NCCL, others through Gloo. Ranks wait for one another for half an hour, in which one may
    still load the model, compile, or compute windows on a slow CPU, while another has nothing to do. A rank that died
    is seen at once, as each watches the next one; not so a machine that vanished without a word.
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
        raise  # no farewell: the others shall see it
    except BaseException:
        watchdog.end(patience=MOMENT)  # the others may not come to an end
        raise
    watchdog.end()
    dist.destroy_process_group()


class PeerWatchdog:
    """Ends this process when the next rank is gone, the last one's being the first; so all end, one after the other.

    Whatever else waits for a rank that died, as NCCL may do for half an hour, needs not know of it.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.group = dist.new_group(backend="gloo", timeout=ENDLESS)
        self.thread = Thread(target=self._wait_for_farewell, daemon=True)
        self.thread.start()

    def _wait_for_farewell(self) -> None:
        with _all_there():
            dist.recv(torch.empty(1), src=(self.ranks.rank + 1) % self.ranks.size, group=self.group)

    def end(self, *, patience: float | None = None) -> None:
        """Says farewell to who watches this rank, and waits for the next one's: for seconds, or as long as it takes."""
        with suppress(RuntimeError):  # it is gone itself
            dist.send(torch.zeros(1), dst=(self.ranks.rank - 1) % self.ranks.size, group=self.group)
        self.thread.join(patience)


@contextmanager
def leaving_together(*, wanted: bool) -> Iterator[None]:
    """Who comes to the end of this context waits for the others, if it is `wanted` and torchrun started several.

    torchrun ends all as soon as one ends with an exit status other than 0, and that may be for one video that failed.
    Nobody waits for a rank that died or was stopped, nor longer than a month; a signal ends a rank that waits.
    """
    if not wanted or world_size() == 1:
        yield
        return
    dist.init_process_group("gloo", timeout=ENDLESS)
    try:
        yield
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would be called after the waiting
        with suppress(RuntimeError):  # one is gone
            dist.barrier()
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes torchrun started, on all machines together; 1 without it."""
    return _of_torchrun("WORLD_SIZE", alone=1)


def global_rank() -> int:
    """Which of them this is."""
    return _of_torchrun("RANK", alone=0)


def local_rank() -> int:
    """Which of this machine's processes this is."""
    return _of_torchrun("LOCAL_RANK", alone=0)


def local_world_size() -> int:
    """How many processes torchrun started on this machine."""
    return _of_torchrun("LOCAL_WORLD_SIZE", alone=1)


def _of_torchrun(name: str, *, alone: int) -> int:
    given = os.environ.get(name, str(alone))
    if not given.isdecimal():
        raise ValueError(f"{name} is {given!r} in the environment, where torchrun puts a number; unset it")
    return int(given)
