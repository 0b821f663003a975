"""Results are found by their records, whatever else lies in the folders."""

import json
from pathlib import Path

import pytest
from helpers import moving_pattern, write_pictures

from lvdm.io.results import Result, find_results


def write_record(folder: Path, **record: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{folder.name}.json").write_text(json.dumps(record))
    return folder


def test_results_are_folders_with_a_record_and_each_is_found_once(tmp_path):
    one, other = (write_record(tmp_path / "model" / prompt / "t2v", prompt=prompt, seed=7) for prompt in "ab")
    (one / "notes.json").write_text("not a record")
    write_record(tmp_path / "model" / "c" / "settings", width=3)
    broken = write_record(tmp_path / "model" / "d" / "t2v") / "t2v.json"
    broken.write_text("{")
    results, problems = find_results([tmp_path, tmp_path / "model" / "a"])
    assert [result.folder for result in results] == [one, other]
    assert [(result.root, result.experiment, result.prompt) for result in results] == [
        (tmp_path / "model", "t2v", "a"),
        (tmp_path / "model", "t2v", "b"),
    ]
    (problem,) = problems
    assert problem.startswith(f"{broken}: ")


def test_experiments_with_the_same_prompt_seed_and_image_have_the_same_identity():
    record = {"prompt": "a", "seed": 7, "image": {"path": "cat.png", "digest": "1"}}
    first = Result(Path("results/a/t2v"), record | {"mode": "t2v"})
    assert first.identity == Result(Path("results/a/other"), record | {"repetition": 0}).identity
    for change in ({"seed": 8}, {"prompt": "b"}, {"repetition": 1}, {"image": None}):
        assert Result(first.folder, record | change).identity != first.identity


def test_frames_are_the_pictures_or_else_the_mp4_or_else_the_gif(tmp_path):
    result = Result(tmp_path / "a" / "t2v", {"prompt": "a"})
    with pytest.raises(FileNotFoundError, match=r"a/t2v: .*t2v\.mp4.*t2v\.gif"):
        result.find_frames()
    write_pictures(result.folder / "fifo", [])
    for name in ("t2v.gif", "t2v.mp4"):
        (result.folder / name).touch()
        assert result.find_frames() == result.find_movie() == result.folder / name
    write_pictures(result.folder / "more", moving_pattern(1)).rename(result.folder / "fifo")
    assert result.find_frames() == result.folder / "fifo"
    assert result.find_movie().name == "t2v.mp4"
