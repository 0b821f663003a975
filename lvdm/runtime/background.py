"""Work that is done behind one's back, in order, in one thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch


class BackgroundWriter:
    """Calls `call` in another thread. A second call waits for the first, so that one is under way and none piles up.

    What a call raises is raised by the next one, or by `wait`.
    """

    def __init__(self, call: Callable[..., object], thread: ThreadPoolExecutor) -> None:
        self.call = call
        self.thread = thread
        self.last: Future | None = None

    def __call__(self, *arguments: object) -> None:
        self.wait()
        self.last = self.thread.submit(self.call, *arguments)

    def wait(self) -> None:
        """Until all is done."""
        last, self.last = self.last, None
        if last is not None:
            last.result()


@contextmanager
def background_writer(call: Callable[..., object]) -> Iterator[BackgroundWriter]:
    """`call`, to be done behind one's back; when the block ends, it is done. torch uses one core for it."""
    with ThreadPoolExecutor(1, "background writer", initializer=torch.set_num_threads, initargs=(1,)) as thread:
        work = BackgroundWriter(call, thread)
        yield work
        work.wait()
