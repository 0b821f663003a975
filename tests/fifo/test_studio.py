"""Ranks that make one video together."""

from types import SimpleNamespace

import pytest

from lvdm.fifo import studio
from lvdm.fifo.ranks import Ranks
from lvdm.fifo.workers import Workers


class AskedError(Exception):
    """A pass was begun."""


def test_ranks_take_the_pass_that_shows_how_many_rows_fit_together(monkeypatch):
    """The rank that sampled the base clip knows. A pass of the others alone would wait for its windows."""

    def passes(denoise, *_, noise):
        raise AskedError(denoise)

    monkeypatch.setattr(Ranks, "any", lambda self, flag: True)  # of another
    monkeypatch.setattr(studio, "fifo", passes)
    monkeypatch.setattr(studio, "queue_schedule", lambda studio: None)
    workers = Workers(rows=2)
    assert not workers.undecided
    shared = SimpleNamespace(
        model=None, options=None, stop=None, ranks=Ranks(0, 2), workers=workers, compiled="another U-Net"
    )
    state = SimpleNamespace(seconds={}, queue=None)
    with pytest.raises(AskedError, match="the plain one"):
        studio.denoise_to_files(shared, None, state=state, denoise="the plain one", noise=None, picture=None, log=None)
