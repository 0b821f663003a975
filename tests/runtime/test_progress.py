"""Progress in a terminal and in a log file."""

import io
import itertools
import re
import sys
import time
from contextlib import suppress

import pytest

from lvdm.runtime.progress import print_above, progress_bar

LINE = r"passes: +\d+% \d+/50 \[\d\d:\d\d<(\d\d:\d\d|\?), .*\]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log_file(monkeypatch):
    """Let stderr be a file, and a second pass with each look at the clock."""
    for clock in ("lvdm.runtime.progress.monotonic", "tqdm.std.time"):
        monkeypatch.setattr(clock, map(float, itertools.count(1000)).__next__)
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    return file


def test_a_log_file_gets_a_line_every_ten_seconds(monkeypatch, capfd):
    log = log_file(monkeypatch)
    for _ in progress_bar(range(50), desc="passes"):
        pass
    *lines, last = log.getvalue().splitlines()
    assert 4 <= len(lines) <= 5  # each step takes a second of this clock
    assert all(re.fullmatch(LINE, line) for line in [*lines, last])
    assert "100% 50/50" in last
    assert "\r" not in log.getvalue()
    assert capfd.readouterr() == ("", "")


def test_changes_of_the_text_do_not_make_more_lines(monkeypatch):
    log = log_file(monkeypatch)
    with progress_bar(total=50, desc="passes") as bar:
        for number in range(50):
            bar.set_postfix_str(f"{number} frames")
            bar.update()
    assert len(log.getvalue().splitlines()) <= 50 * 2 / 10 + 1
    assert "49 frames" in log.getvalue().splitlines()[-1]


def test_a_bar_that_stays_shows_where_it_begins(monkeypatch):
    log = log_file(monkeypatch)
    with progress_bar(desc="videos", total=4, initial=1, unit="video", leave=True) as bar:
        bar.update(2)
    first, last = log.getvalue().splitlines()
    assert first.startswith("videos: 25% 1/4")
    assert last.startswith("videos: 75% 3/4")  # also where it ends early


def test_without_a_total_the_steps_are_counted(monkeypatch):
    log = log_file(monkeypatch)
    for _ in progress_bar(iter(range(30)), desc="frames", unit=" frames"):
        pass
    assert re.fullmatch(r"frames: 30 frames \[\d\d:\d\d, .*\]", log.getvalue().splitlines()[-1])


def test_what_is_over_in_seconds_is_not_worth_a_line(monkeypatch):
    log = log_file(monkeypatch)
    for _ in progress_bar("abc", desc="passes"):
        pass
    assert log.getvalue() == ""


def test_a_step_that_takes_long_is_shown_meanwhile(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    monkeypatch.setattr("lvdm.runtime.progress.LINE_INTERVAL", 0.05)
    with progress_bar(total=2, desc="passes"):
        time.sleep(0.3)
        meanwhile = log.getvalue().splitlines()
    assert 2 <= len(meanwhile) <= 7
    assert all(line.startswith("passes: 0% 0/2") for line in meanwhile)
    time.sleep(0.12)
    assert len(log.getvalue().splitlines()) == len(meanwhile) + 1


def test_messages_are_lines_of_their_own(monkeypatch):
    log = log_file(monkeypatch)
    with progress_bar(total=2, desc="passes", leave=True) as bar:
        print_above("warning: something")
        bar.update(2)
    _, message, last = log.getvalue().splitlines()
    assert message == "warning: something"
    assert last.startswith("passes: 100%")


def test_a_terminal_shows_a_bar_that_goes_away(monkeypatch, capfd):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in progress_bar(range(3), desc="passes"):
        print_above("message")
    assert "\rpasses:   0%|" in terminal.getvalue()
    assert "message\n" in terminal.getvalue()
    assert terminal.getvalue().rstrip(" \r").endswith("]")  # overwritten with blanks
    assert terminal.getvalue().endswith("\r")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_other_ranks_show_nothing(monkeypatch, kind):
    monkeypatch.setattr(sys, "stderr", kind())
    with progress_bar(total=3, desc="passes", disabled=True, leave=True) as bar:
        bar.set_postfix_str("one")
        bar.update()
    assert list(progress_bar("abc", desc="passes", disabled=True)) == ["a", "b", "c"]
    assert sys.stderr.getvalue() == ""


def test_an_exception_leaves_the_last_state(monkeypatch):
    log = log_file(monkeypatch)
    with suppress(KeyboardInterrupt), progress_bar(total=50, desc="passes") as bar:
        for _ in range(20):
            bar.update()
        raise KeyboardInterrupt
    assert log.getvalue().splitlines()[-1].startswith("passes: 40% 20/50")
