"""Ctrl-C at any time ends a program with one line and exit status 130."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import ROOT

from lvdm.cli.command import with_error_lines

SCRIPTS = ["videocrafter_main.py", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("scripts/*.py"))]


def interrupted(script: str, ready: Callable[[int], bool], *, after: float = 0, **environment: str) -> tuple[int, str]:
    """Start `script`, send SIGINT `after` seconds from when it is `ready`; return its exit status and stderr."""
    command = [sys.executable, script, "--help"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | environment, text=True
    )
    while not ready(process.pid):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_during_the_first_import(tmp_path, script):
    """The first package that each script imports is one of these, and takes a minute."""
    marker = tmp_path / "importing"
    for package in ("torch", "numpy", "huggingface_hub", "yaml", "omegaconf", "PIL"):
        (tmp_path / f"{package}.py").write_text(f"open({str(marker)!r}, 'w').close()\nimport time\ntime.sleep(60)\n")
    assert interrupted(script, lambda _: marker.exists(), PYTHONPATH=str(tmp_path)) == (130, "stopped by SIGINT\n")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells which libraries a process has loaded")
@pytest.mark.parametrize("after", [0, 0.2, 0.5])
def test_ctrl_c_while_torch_is_imported(after):
    def importing(process: int) -> bool:
        return "libtorch" in Path(f"/proc/{process}/maps").read_text()

    assert interrupted("videocrafter_main.py", importing, after=after) == (130, "stopped by SIGINT\n")


def test_the_helper_imports_nothing_that_takes_long():
    code = "import sys, lvdm.runtime.interrupt; print(*{'torch', 'numpy', 'tqdm'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "\n"


def test_ctrl_c_within_a_command_tidies_up(capsys):
    steps = []

    @with_error_lines
    def main() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            steps.append("tidied up")
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert main() == 130
    assert steps == ["tidied up"]
    assert capsys.readouterr().err == "stopped by SIGINT\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_may_run_in_another_thread():
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(with_error_lines(lambda: 3)).result() == 3
