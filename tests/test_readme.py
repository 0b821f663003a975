"""README and the Markdown files beside the code: their commands, examples and links are right."""

import argparse
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, load_script

from lvdm.cli.arguments import parse_args
from lvdm.io.prompt_file import read_prompts
from lvdm.pipeline import generate
from lvdm.pipeline.mode import TASKS, Mode
from lvdm.pipeline.video import prompts_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = ("configs", "lvdm", "prompts", "results/showcase")
TEXTS = {
    path: path.read_text(encoding="utf-8")
    for path in [
        *sorted(ROOT.glob("*.md")),
        *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.md"))),
    ]
}
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def commands_in(text: str) -> list[str]:
    """Return the commands of a Markdown text that run Python: lines of its bash blocks, and code within sentences."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    found = re.findall(r"(?:^|&& )((?:python|torchrun) .*)", blocks, flags=re.MULTILINE)
    found = [command.split("  #")[0] for command in found]
    return [*found, *re.findall(r"`((?:python|torchrun) [^`\n]+)`", text)]


COMMANDS = [(path, command) for path, text in TEXTS.items() for command in commands_in(text)]


def words_behind(command: str, program: str) -> list[str]:
    """Return the arguments of `program` in a shell command."""
    words = shlex.split(command, comments=True)
    return words[words.index(program) + 1 :]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The project without anyone's results, after those of the commands that write prompt files."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.name != "results":
            (folder / path.name).symlink_to(path)
    for command in sorted({command for _, command in COMMANDS if "--write_prompts" in command}):
        subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("command", sorted({command for _, command in COMMANDS if "videocrafter_main.py" in command}))
def test_commands_are_taken(command, checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    words = words_behind(command, "videocrafter_main.py")
    if words == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            parse_args(words)
    else:
        assert prompts_of(parse_args(words))


class ArgumentsRead(Exception):  # noqa: N818
    """Raised in the place of what a script does with its arguments."""


@pytest.mark.parametrize("command", sorted({command for _, command in COMMANDS if "scripts/" in command}))
def test_scripts_take_the_words_of_their_commands(command, monkeypatch):
    """Every flag is known, its value is allowed, and what is to be read from this repository is there."""
    (script,) = re.findall(r"scripts/(\w+)\.py", command)
    words = words_behind(command, f"scripts/{script}.py")
    parse = argparse.ArgumentParser.parse_args

    def parsed(*arguments: object) -> None:
        parse(*arguments)
        raise ArgumentsRead

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    with pytest.raises(ArgumentsRead):
        load_script(script).main()
    for word in words:
        if re.match(r"(configs|prompts|tests|lvdm|results/showcase)/", word):
            assert Path(word).exists(), word


def test_there_are_commands():
    commands = [command for _, command in COMMANDS]
    assert "python videocrafter_main.py" in commands
    assert len([command for command in commands if "videocrafter_main.py" in command]) >= 4
    assert {name for name in SCRIPTS if any(f"scripts/{name}" in command for command in commands)} == set(SCRIPTS)
    assert "python -m pytest -q" in commands
    assert "python -m pytest -q" in (ROOT / ".ci/run").read_text()


def test_readme_names_every_script():
    assert set(re.findall(r"scripts/(\w+\.py)", README)) == set(SCRIPTS)


def test_scripts_explain_themselves(tmp_path):
    """All of them run as programs, from another folder, in one process that imports torch once."""
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_path(sys.argv[0], run_name='__main__')"
    loop = f"import sys\nfor sys.argv[0] in {[str(ROOT / 'scripts' / name) for name in SCRIPTS]}:\n"
    loop += f"    try:\n        {code}\n    except SystemExit as end:\n        assert not end.code, sys.argv\n"
    finished = subprocess.run([sys.executable, "-c", loop], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert all(f"usage: {name}" in finished.stdout for name in SCRIPTS)


def test_python_example_is_taken(monkeypatch):
    signature = inspect.signature(generate.generate)
    monkeypatch.setattr(generate, "generate", lambda *args, **named: iter([signature.bind(*args, **named)]))
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(example, names)
    assert names["frame"].arguments["frames"] == 100


def test_csv_example_is_read(tmp_path):
    (example,) = re.findall(r"```csv\n(.*?)```", TEXTS[ROOT / "prompts/README.md"], flags=re.DOTALL)
    (tmp_path / "prompts.csv").write_text(example, encoding="utf-8")
    first, second = read_prompts(tmp_path / "prompts.csv", experiment="t2v")
    assert (first.seed, first.new_video_length, first.experiment) == (7, 200, "long")
    assert second.text == "a red circle, spinning"


def test_schedule_example_is_the_file_of_that_name():
    (example,) = re.findall(r"```\n(\{.*\})\n```", TEXTS[ROOT / "prompts/README.md"])
    assert example == (ROOT / "prompts/schedule.txt").read_text().strip()


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
