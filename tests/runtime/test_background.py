"""Writing in another thread: in order, one call at a time, and no error is lost."""

from threading import Event, get_ident

import pytest

from lvdm.runtime.background import background_writer


def test_calls_are_made_in_order_in_another_thread():
    made = []
    with background_writer(lambda number: made.append((number, get_ident()))) as write:
        for number in range(5):
            write(number)
    assert [number for number, _ in made] == list(range(5))
    assert {thread for _, thread in made}.isdisjoint({get_ident()})


def test_the_caller_continues_while_one_call_is_pending():
    go, made = Event(), []

    def wait(number: int) -> None:
        assert go.wait(timeout=60)
        made.append(number)

    with background_writer(wait) as write:
        write(0)
        assert made == []
        go.set()
        write.wait()
        assert made == [0]


def fail() -> None:
    raise OSError("the disk is full")


def raise_at_the_end(error: Exception | None = None) -> None:
    with background_writer(fail) as write:
        write()
        if error is not None:
            raise error


def test_what_a_call_raises_is_raised_by_the_next_by_waiting_and_at_the_end():
    with background_writer(fail) as write:
        write()
        with pytest.raises(OSError, match="the disk is full"):
            write()
        write()
        with pytest.raises(OSError, match="the disk is full"):
            write.wait()
    with pytest.raises(OSError, match="the disk is full"):
        raise_at_the_end()


def test_an_error_of_the_block_itself_takes_precedence():
    with pytest.raises(ValueError, match="something else"):
        raise_at_the_end(ValueError("something else"))
