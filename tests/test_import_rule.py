"""The packages of lvdm import only packages below them, and its files and functions are short."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from helpers import ROOT

LAYERS = (  # from the bottom to the top; packages of one layer do not import each other
    ("runtime",),
    ("io",),
    ("data", "modules"),
    ("models",),
    ("diffusion",),
    ("sampling",),
    ("pipeline",),
    ("cli", "training"),
    ("evaluation",),  # above cli, since the experiments of an ablation are written as flags of the command line
    ("web",),
)
FILES = sorted((ROOT / "lvdm").rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_ENTRY_SCRIPT = 300, 50, 90  # lines


def imported(file: Path) -> Iterator[str]:
    """Yield the full names that a file imports: at its top, in functions, for type checkers, and by name.

    By name is `import_module("lvdm.io")` or `__import__("lvdm.io")`; the beginning of an f-string counts as well. Names
    that are computed, as those of the targets in a model's config, are not seen.
    """
    package = file.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (start, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            texts = (part for argument in (*node.args, *node.keywords) for part in ast.walk(argument))
            yield from (part.value for part in texts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_packages_import_only_packages_below_them():
    wrong = []
    for file in FILES:
        package = file.relative_to(ROOT / "lvdm").parts[0]  # of lvdm/__init__.py its own name, which is in no layer
        level = next((level for level, names in enumerate(LAYERS) if package in names), len(LAYERS))
        below = {"lvdm." + name for names in LAYERS[:level] for name in names} | {f"lvdm.{package}"}
        for name in imported(file):
            top = ".".join(name.split(".")[:2]) if name.startswith("lvdm") else name.split(".")[0]
            if (top.startswith("lvdm") and top not in below) or top in ("scripts", "tests", "videocrafter_main"):
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_imports_by_name_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "file.py").write_text(
        'importlib.import_module("lvdm.cli.command")\nimport_module(name="lvdm.web")\n__import__("scripts.train")\n'
        'import_module(f"lvdm.pipeline.{name}")\nimport_module(module)\nprint("lvdm.cli")\n'
    )
    seen = ["lvdm.cli.command", "lvdm.web", "scripts.train", "lvdm.pipeline."]
    assert list(imported(tmp_path / "file.py")) == seen


def test_every_package_has_a_layer():
    packages = {path.name for path in (ROOT / "lvdm").iterdir() if list(path.glob("**/*.py"))}
    assert packages == {name for names in LAYERS for name in names}


def test_files_and_functions_are_short():
    long = []
    for file in FILES:
        text, place = file.read_text(encoding="utf-8"), file.relative_to(ROOT)
        if (lines := len(text.splitlines())) > MAX_FILE:
            long.append(f"{place} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION:
                constructs_network = node.name == "__init__" and place.parts[1] in ("models", "modules")
                long += [] if constructs_network else [f"{place}: {node.name} has {lines} lines"]
    assert long == []
    assert len((ROOT / "videocrafter_main.py").read_text(encoding="utf-8").splitlines()) <= MAX_ENTRY_SCRIPT
