"""Write finished frames in another thread while the next ones are computed."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from lvdm.runtime.grad_mode import in_this_grad_mode


class BackgroundWriter:
    """Run `write` in another thread, in order, one call at a time.

    A call waits for the one before it, so at most one is pending and memory does not grow. What `write` raises is
    raised by the next call or by `wait`. It runs in torch's gradient mode of the thread that made this object.
    """

    def __init__(self, write: Callable[..., object], thread: ThreadPoolExecutor) -> None:
        self._write = in_this_grad_mode(write)
        self._thread = thread
        self._pending: Future | None = None

    def __call__(self, *arguments: object) -> None:
        """Wait for the call before, then start write(*arguments)."""
        self.wait()
        self._pending = self._thread.submit(self._write, *arguments)

    def wait(self) -> None:
        """Wait until everything is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


@contextmanager
def background_writer(write: Callable[..., object]) -> Iterator[BackgroundWriter]:
    """Yield a BackgroundWriter, whose thread uses one core, and wait at the end of the block until all is written."""
    with ThreadPoolExecutor(1, "background writer", initializer=torch.set_num_threads, initargs=(1,)) as thread:
        writer = BackgroundWriter(write, thread)
        yield writer
        writer.wait()
