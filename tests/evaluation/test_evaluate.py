"""The command scripts/evaluate.py measures results, video files and folders of pictures."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from helpers import RED, ROOT, load_script, prompt_file
from helpers import command as videocrafter

from lvdm.evaluation.instruments import Instruments
from lvdm.evaluation.measure import Measurement, measure
from lvdm.evaluation.plots import plot
from lvdm.evaluation.report import Report, differences_table
from lvdm.evaluation.sources import Source, find_sources
from lvdm.io.writers.video_files import open_files

evaluate = load_script("evaluate")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command; returns its exit status, its output, and the lines of errors that are no progress bar."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        try:
            status = evaluate.main()
        except SystemExit as error:
            status = error.code
        output, errors = capsys.readouterr()
        return status, output, [line for line in errors.splitlines() if line.startswith(("error:", "stopped"))]

    return call


def make_result(root, prompt, experiment, frames, *, seed=0, kind="gif"):
    folder = root / prompt.replace(" ", "_") / experiment
    with open_files(folder, experiment, formats=[kind], fps=8, comment="") as files:
        for frame in frames:
            files.write(frame)
    record = {"prompt": prompt, "seed": seed, "mode": "t2v", "experiment": experiment}
    (folder / f"{experiment}.json").write_text(json.dumps(record))
    return folder / f"{experiment}.{kind}"


def ramp(count, slope):
    """Grey frames that become brighter."""
    return [np.full((64, 96, 3), 60 + round(slope * at), np.uint8) for at in range(count)]


def table(output):
    """(metric, experiment) -> the other cells."""
    head, _, *lines = (
        [cell.strip() for cell in line[1:-1].split("|")] for line in output.splitlines() if line[:1] == "|"
    )
    return {(line[0].split()[0], line[1]): dict(zip(head[2:], line[2:], strict=True)) for line in lines}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two experiments of three prompts: the second drifts by 1, 2, 3 levels a window more. One prompt has no pair."""
    root = tmp_path_factory.mktemp("made")
    for number in range(3):
        make_result(root, f"prompt {number}", "base", ramp(48, number), seed=number)
        make_result(root, f"prompt {number}", "other", ramp(48, number + (number + 1) / 16), seed=number)
    make_result(root, "prompt 3", "other", ramp(48, 1))
    return root


@pytest.fixture
def results(made, tmp_path):
    """A copy of them, to be changed."""
    return shutil.copytree(made, tmp_path / "results")


def test_experiments_are_compared_by_pairs_in_all_files(results, tmp_path, run):
    output = tmp_path / "out"
    status, text, errors = run(results, "--baseline", "base", "--output", output)
    assert (status, errors) == (0, [])
    base, other = (table(text)["brightness_drift", experiment] for experiment in ("base", "other"))
    assert (base["prompts"], other["prompts"], base["pairs"], other["pairs"]) == ("3", "4", "", "3")
    assert float(base["mean"]) == pytest.approx(32, abs=0.01)  # of 0, 32 and 64
    assert float(base["SD"]) == pytest.approx(32, abs=0.01)
    assert float(other["less base"]) == pytest.approx(2 * 2, abs=0.2)  # levels are whole
    assert (output / "table.md").read_text() == text
    head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (output / "differences.md").open())
    column = head.index("brightness_drift ↓")
    assert [(line[0], line[column]) for line in lines] == [("base", "32"), ("other", "+4")]
    assert lines[1][head.index("motion")] == "+0"

    report = json.loads((output / "report.json").read_text())
    (row,) = (r for r in report["experiments"] if (r["metric"], r["experiment"]) == ("brightness_drift", "other"))
    assert row["against"]["low"] < row["against"]["mean"] < row["against"]["high"]
    with open(output / "videos.csv", newline="") as file:
        videos = list(csv.DictReader(file))
    assert {(one["experiment"], one["frames"]) for one in videos} == {("base", "48"), ("other", "48")}
    with open(output / "curves.csv", newline="") as file:
        points = [p for p in csv.DictReader(file) if p["metric"] == "brightness_drift" and p["name"] == "prompt_2"]
    assert [p["first_frame"] for p in points if p["experiment"] == "base"] == ["0", "16", "32"]
    for point, expected in zip(points[:3], (0, 32, 64), strict=True):
        assert float(point["mean"]) == pytest.approx(expected, abs=0.01)
    assert {path.stem for path in (output / "plots").iterdir()} >= {"brightness_drift", "motion"}
    assert iio.imread(output / "plots" / "motion.png").std() > 1

    pairs = {"differences.md", "differences.png"}
    assert pairs <= {path.name for path in output.rglob("*")}
    (output / "plots" / "mine.png").touch()
    assert run(results, "--output", output)[0] == 0
    left = {path.name for path in output.rglob("*")}
    assert {"mine.png", "overview.png"} <= left
    assert not pairs & left


def test_a_missing_picture_does_not_stop_the_evaluation_of_other_videos(tmp_path, run):
    for name in ("whole", "broken"):
        for number, frame in enumerate(ramp(18, 1)):
            path = tmp_path / "videos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            iio.imwrite(path, frame)
    path.unlink()
    path.symlink_to("nowhere.png")
    for words in ((), ("--output", tmp_path / "out")):
        status, text, errors = run(tmp_path / "videos", *words)
        assert (status, len(errors)) == (1, 1)
        assert "broken" in errors[0]
        assert "17.png" in errors[0]
        assert table(text)["temporal_flickering", "videos"]["prompts"] == "1"


def test_torch_is_imported_only_for_captions_of_the_shapes_grammar(tmp_path):
    """It takes 500 MB."""
    code = (
        "import sys; from pathlib import Path; from lvdm.evaluation.sources import find_sources;"
        "from lvdm.evaluation.instruments import Instruments; from lvdm.evaluation.measure import measure;"
        "(source,), _ = find_sources([Path(sys.argv[1])]);"
        "found = measure(source, Instruments()); print('torch' in sys.modules, 'shapes_color' in found.numbers)"
    )
    for prompt, words in (("a car driving by day", "False False"), ("a cat", "False False"), (RED, "True True")):
        video = make_result(tmp_path, prompt, "t2v", ramp(16, 1))
        done = subprocess.run(
            [sys.executable, "-c", code, video.parent], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == words.split()


def test_only_significant_differences_are_bold():
    """Of 12 pairs; those with a mean as large that differ from one another as much as from 0 are not."""
    videos = [
        (
            Source(Path(), Path(), experiment, "", ((0, f"prompt {number}"),), (number,)),
            Measurement(16, 8, 8, {"motion": number + shift, "clip_f": shift * (-1) ** number * number}, {}, [], []),
        )
        for number in range(12)
        for experiment, shift in (("base", 0), ("other", 1))
    ]
    head, _, base, other = differences_table(Report(videos, "base", {}, {}, [])).splitlines()
    assert head == "|  | motion | clip_f ↑ |"
    assert base == "| base | 5.5 | 0 |"
    assert other == "| other | **+1** | -0.5 |"


def test_a_plot_shows_means_over_prompts_at_the_middles_of_windows(tmp_path):
    """The seeds of a prompt count as their mean; the last window, of 4 frames, is drawn in its middle."""
    for seed, slope, prompt in ((0, 1, "a"), (1, 3, "a"), (2, 4, "b")):
        make_result(tmp_path / str(seed), prompt, "base", ramp(36, slope), seed=seed)
    (sources, _), instruments = find_sources([tmp_path]), Instruments()
    videos = [(source, measure(source, instruments)) for source in sources]
    (line,) = plot(Report(videos, None, {}, {}, []), "brightness_drift").axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), [8, 24, 34])
    np.testing.assert_allclose(line.get_ydata(), [0, 3 * 16, 3 * 26], atol=1e-3)


def test_the_report_says_why_metrics_are_left_out(results, run):
    _, text, _ = run(results)
    assert not any(metric in text.split("\n\n")[0] for metric in ("clip_f", "ssim", "latent", "shapes", "journey"))
    for reason in ("--clip_weights", "--reference", "--config", "shapes grammar", "journeys grammar"):
        assert reason in text.split("\n\n")[1]


def test_a_second_run_measures_only_what_is_new_or_has_changed(results, tmp_path, run):
    output = tmp_path / "out"
    _, first, _ = run(results, "--output", output)
    kept = {path: path.stat().st_mtime_ns for path in (output / "videos").iterdir()}
    assert len(kept) == 7

    video = results / "prompt_1" / "base" / "base.gif"
    stat = video.stat()
    video.write_bytes(bytes(stat.st_size))
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # it looks as before: it is not opened
    assert run(results, "--output", output)[:2] == (0, first)
    assert {path: path.stat().st_mtime_ns for path in (output / "videos").iterdir()} == kept

    make_result(results, "prompt 4", "base", ramp(20, 1), kind="mp4")
    assert run(results, "--output", output)[0] == 0
    (new,) = set((output / "videos").iterdir()) - set(kept)
    new.write_text("damaged")
    assert run(results, "--output", output)[0] == 0
    assert json.loads(new.read_text())["measurement"]["frames"] == 20
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    os.utime(video)
    status, text, errors = run(results, "--output", output)
    assert (status, len(errors)) == (1, 1)
    assert str(video) in errors[0]
    assert f"missing: {video}" in text
    assert run(results, "--output", output, "--window", "8")[0] == 1
    assert len(list((output / "videos").iterdir())) == 8 + 7


def test_an_unreadable_video_does_not_stop_the_evaluation_of_others(results, run):
    (results / "prompt_0" / "base" / "base.json").write_text('{"prompt": ')
    (results / "prompt_1" / "base" / "base.gif").unlink()
    (results / "prompt_2" / "base" / "base.gif").write_bytes(b"not a video")
    status, text, errors = run(results)
    assert status == 1
    assert len(errors) == 3
    for number, error in enumerate(sorted(errors, key=lambda line: line.partition("prompt_")[2])):
        assert f"prompt_{number}/base" in error
    assert {experiment for _, experiment in table(text)} == {"other"}


def test_videos_of_other_programs_are_paired_by_their_names(tmp_path, run):
    for program, slope in (("ours", 1), ("theirs", 2)):
        for name in ("cat", "dog"):
            frames = tmp_path / program / name
            frames.mkdir(parents=True)
            for number, frame in enumerate(ramp(32, slope)):
                iio.imwrite(frames / f"frame{number}.png", frame)  # frame10 comes after frame9
        iio.imwrite(tmp_path / program / "bird.gif", np.stack(ramp(32, slope)), duration=100)
        (tmp_path / program / "owl.partial.mp4").write_bytes(b"still growing")
    status, text, _ = run(tmp_path / "ours", tmp_path / "theirs", "--baseline", "ours")
    row = table(text)["brightness_drift", "theirs"]
    assert status == 0
    assert (row["mean"], row["less ours"], row["pairs"]) == ("32", "+16", "3")
    status, text, _ = run(tmp_path / "ours" / "cat", "--reference", tmp_path / "ours" / "dog")
    assert table(text)["ssim_to_reference", "ours"]["mean"] == "1"


def test_a_video_of_the_embedded_model_is_evaluated_with_its_vae_and_prompt(tmp_path, run):
    """A short video of the embedded model, with its VAE, and with the shape that its prompt names."""
    flags = ["--prompt_file", prompt_file(tmp_path, RED), "--output_dir", tmp_path / "out", "--new_video_length", "8"]
    assert videocrafter(*flags, "--video_length", "4", "-n", "1", "--device", "cpu") == 0
    model = ["--config", ROOT / "configs/inference_t2v_tiny.yaml"]
    model += ["--ckpt_path", ROOT / "videocrafter_models/tiny_t2v/model.ckpt"]
    status, text, errors = run(tmp_path / "out", *model, "--device", "cpu")
    assert (status, errors) == (0, [])
    rows = table(text)
    for metric in ("temporal_flickering", "motion", "latent_consistency", "shapes_background"):
        assert rows[metric, "t2v"]["prompts"] == "1"
    assert 0.3 < float(rows["latent_consistency", "t2v"]["mean"]) < 1
    assert "VAE of inference_t2v_tiny" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["EMPTY"], "there is no video in"),
        (["RESULTS", "--baseline", "bse"], "--baseline 'bse': allowed are base, other"),
        (["RESULTS", "--window", "1"], "--window 1"),
        (["RESULTS", "--window", "x"], "--window"),
        (["RESULTS", "--output", "FILE"], "--output"),
        (["RESULTS", "--reference", "nowhere.mp4"], "--reference 'nowhere.mp4'"),
        (["RESULTS", "--reference", "FILE"], "--reference"),
        (["RESULTS", "--clip_weights", "nowhere.pt"], "--clip_weights 'nowhere.pt'"),
        (["RESULTS", "--config", "nowhere.yaml"], "--config 'nowhere.yaml'"),
        (["RESULTS", "--config", "TINY", "--ckpt_path", "nowhere.ckpt"], "--ckpt_path 'nowhere.ckpt'"),
        (["RESULTS", "--config", "TINY", "--device", "abacus"], "--device 'abacus'"),
        (["RESULTS", "--ckpt_path", "model.ckpt"], "--ckpt_path 'model.ckpt': needs --config"),
        (["RESULTS", "--out", "x"], "--out"),
        ([], "RESULTS"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(arguments, message, made, tmp_path, run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file")
    names = {"RESULTS": made, "EMPTY": tmp_path / "empty", "FILE": tmp_path / "file"}
    names["TINY"] = ROOT / "configs/inference_t2v_tiny.yaml"
    status, output, errors = run(*(names.get(argument, argument) for argument in arguments))
    assert (status, output) == (2, "")
    assert len(errors) == 1
    assert message in errors[0]


def test_a_video_is_found_once_and_experiments_of_the_same_name_are_distinguished(results, tmp_path):
    make_result(tmp_path / "more", "prompt 0", "base", ramp(8, 1))
    sources, problems = find_sources([results, results / "prompt_0", tmp_path / "more"])
    assert problems == []
    assert len(sources) == 8
    assert {source.experiment for source in sources} == {f"{results}/base", "other", f"{tmp_path / 'more'}/base"}
    assert all(isinstance(source.path, Path) for source in sources)
