"""Batches that are computed in parts, and what happens when memory runs out."""

import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lvdm.runtime.batching import Workers

ROW = 4 * 2**30  # bytes of address space: more than what earlier tests leave in this process to be used again
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")


@contextmanager
def memory_for(more: int) -> Iterator[None]:
    """Limit the address space of this process, within this block, to `more` bytes on top of what it has."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (has + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def hungry(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    torch.empty(len(x), ROW, dtype=torch.uint8)
    return x + y


@pytest.mark.parametrize("shares", [1, 2])
def test_parts_are_halved_until_they_fit(capfd, shares):
    batch = torch.arange(16.0)
    with ThreadPoolExecutor(1) as threads, memory_for(3 * ROW):
        workers = Workers(shares, run=threads.map)
        assert torch.equal(workers(hungry, batch, batch), 2 * batch)
        assert workers.rows == 2
        said = capfd.readouterr().err.splitlines()
        assert [line.split(";")[1] for line in said][-1] == " goes on with 2"
        assert len(said) == {1: 3, 2: 2}[shares]
        workers(hungry, batch, batch)
    assert not capfd.readouterr().err  # it remembers


class Shelf:
    """A device with room for so many rows."""

    def __init__(self, room: int) -> None:
        self.room = room

    def watch(self) -> None:
        self.watching = True

    def fitting(self, rows: int) -> int:
        assert self.watching
        assert rows == 2
        return self.room


@pytest.mark.parametrize(("room", "parts"), [(2, [2] * 8), (3, [2] * 8), (7, [4] * 4), (10, [8, 8]), (40, [16])])
def test_as_many_rows_as_fit_after_a_first_batch_in_windows(room, parts):
    sizes = []

    def double(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return 2 * x

    workers, batch = Workers(memory=Shelf(room)), torch.arange(16.0)
    for _ in range(2):
        assert torch.equal(workers(double, batch), 2 * batch)
    assert sizes == [2] * 8 + parts  # equal ones: another shape would be compiled anew


@pytest.mark.parametrize(
    ("total", "rows", "shares", "parts"),
    [(12, 4, 4, [2] * 6), (16, 4, 4, [4] * 4), (2, 4, 4, [1, 1]), (26, 13, 1, [13, 13]), (9, None, 1, [9])],
)
def test_parts_are_of_pairs_unless_they_would_be_much_smaller(total, rows, shares, parts):
    sizes = []
    Workers(shares, rows=rows)(lambda x: sizes.append(len(x)) or x, torch.arange(total))
    assert sizes == parts


def test_a_batch_that_never_fits_is_an_error():
    def gigantic(x: torch.Tensor) -> torch.Tensor:
        return x + torch.empty(2**42, dtype=torch.uint8)[0]

    with memory_for(ROW), pytest.raises(torch.OutOfMemoryError, match="not even half a window"):
        Workers()(gigantic, torch.zeros(4))


def test_other_errors_are_not_taken_for_out_of_memory():
    with pytest.raises(RuntimeError, match="size of tensor"):
        Workers()(torch.add, torch.zeros(4, 2), torch.zeros(4, 3))
