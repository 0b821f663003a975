"""The README's commands and examples are ones that the program takes, and the code is as tidy as the tools can tell."""

import inspect
import re
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT

from lvdm.cli.arguments import parse_args
from lvdm.io.prompt_file import read_prompts
from lvdm.pipeline import generate
from lvdm.pipeline.mode import TASKS, Mode
from lvdm.pipeline.video import prompts_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))}
TEXTS |= {
    path: path.read_text(encoding="utf-8")
    for folder in ("configs", "lvdm", "prompts", "results/showcase")
    for path in sorted((ROOT / folder).rglob("*.md"))
}
BASH = "\n".join(block for text in TEXTS.values() for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL))
COMMANDS = re.findall(r"python videocrafter_main\.py([^\n]*)", BASH)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The project without anyone's results, after those of README's commands that write prompt files."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name != "results":
            (folder / path.name).symlink_to(path)
    for command in re.findall(r"^python (scripts/\w+\.py --write_prompts .*)$", BASH, flags=re.MULTILINE):
        subprocess.run([sys.executable, *shlex.split(command)], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_taken(command, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    assert prompts_of(parse_args(shlex.split(command)))


def test_there_are_commands():
    assert "" in COMMANDS
    assert len(COMMANDS) >= 4
    assert "python -m pytest -q" in BASH
    assert "python -m pytest -q" in (ROOT / ".ci/run").read_text()


def test_scripts_exist_and_explain_themselves():
    scripts = set(re.findall(r"scripts/\w+\.py", README))
    assert scripts == {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
    for script in scripts:
        finished = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, check=False)
        assert finished.returncode == 0, script


def test_python_example_is_taken(monkeypatch):
    signature = inspect.signature(generate.generate)
    monkeypatch.setattr(generate, "generate", lambda *args, **named: iter([signature.bind(*args, **named)]))
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(example, names)
    assert names["frame"].arguments["frames"] == 100


def test_csv_example_is_read(tmp_path):
    (example,) = re.findall(r"```csv\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "prompts.csv").write_text(example, encoding="utf-8")
    first, second = read_prompts(tmp_path / "prompts.csv", experiment="t2v")
    assert (first.seed, first.new_video_length, first.experiment) == (7, 200, "long")
    assert second.text == "a red circle, spinning"


def test_every_word_of_the_table_of_modes_is_one():
    table = README[README.index("## Modes") : README.index("## What a run writes")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    words = [re.findall("`([^`]+)`", row) for row in rows]
    *tasks, (*qcaches, first, second), (weight, *_), (unilatent, *_) = words
    assert {task for (task,) in tasks} == set(TASKS)
    for qcache in qcaches:
        for attention in (first, second):
            assert Mode.parse(f"t2v_{unilatent}_{qcache}{attention}_{weight}").unilatent


def headings(text):
    """Return the anchors that GitHub makes of the headings of a Markdown text."""
    lines = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_and_headings_lead_somewhere(path):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[path]):
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), link
        assert not anchor or anchor in headings(file.read_text(encoding="utf-8")), link


def test_readme_is_read_from_top_to_bottom():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff(arguments):
    finished = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout
