"""One process at a time writes a folder."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest
from helpers import ROOT

from lvdm.io.lock import FolderInUseError, folder_lock

TAKE_TURNS = """
import os, sys
from pathlib import Path
from lvdm.io.lock import FolderInUseError, folder_lock
folder, turns = Path(sys.argv[1]), 0
while turns < 100:
    try:
        with folder_lock(folder):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails if another process is inside, too
            os.unlink(folder / "inside")
            turns += 1
    except FolderInUseError:
        pass
"""


def test_the_error_says_who_holds_the_folder_and_since_when(tmp_path):
    folder = tmp_path / "new" / "folder"
    with folder_lock(folder):
        with (
            pytest.raises(FolderInUseError, match=re.escape(f"{folder} is being written")) as caught,
            folder_lock(folder),
        ):
            pass
        who = f"(pid {os.getpid()}, on host {socket.gethostname()}, since 2"
        assert who in str(caught.value)
        assert "--output_dir or --experiment" in str(caught.value)
    assert list(folder.iterdir()) == []
    with folder_lock(folder):
        pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "(it has just begun)"),
        ('{"pid": 12, "ho', "(it has just begun)"),
        ("[1]", "(it has just begun)"),
        ('{"pid": 12}', "(pid 12)"),
        ("{}", "(it does not say which)"),
        (json.dumps({"host": "x" * 500}), f"(on host {'x' * 57}...)"),
    ],
)
def test_a_holder_is_named_as_far_as_it_is_known(tmp_path, content, words):
    with folder_lock(tmp_path):
        (tmp_path / ".lock").write_text(content)
        with (
            pytest.raises(FolderInUseError, match=re.escape(f"by another process {words}; wait")),
            folder_lock(tmp_path),
        ):
            pass


def test_a_lock_file_that_was_left_behind_does_not_matter(tmp_path):
    (tmp_path / ".lock").write_text('{"pid": 1, "host": "elsewhere", "since": "long ago"}')
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "other").write_text("content")
    (tmp_path / ".lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / ".lock"))), folder_lock(tmp_path):
        pass
    assert (tmp_path / "other").read_text() == "content"


def test_processes_take_turns(tmp_path):
    """The file is removed with every turn, and still no two processes hold the lock together."""
    command = [sys.executable, "-c", TAKE_TURNS, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_windows_users_read_what_to_do():
    code = "import sys; sys.modules['fcntl'] = None; import lvdm.io.lock"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr.endswith("on Windows run it in WSL\n")


def test_python_makes_videos_without_the_lock():
    """So `from lvdm import generate` does not need what Windows does not have."""
    code = "import sys; sys.modules['fcntl'] = None; from lvdm import generate, load_model"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
