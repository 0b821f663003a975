"""The command scripts/ablate.py makes, measures and resumes a small ablation of the embedded model."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import yaml
from helpers import BLUE, RED, ROOT, command, load_script, prompt_file

from lvdm.evaluation import ablation_run
from lvdm.evaluation.ablation import default_output, read_ablation, trials_of
from lvdm.evaluation.measure import measure

ablate = load_script("ablate")


@pytest.fixture(scope="module")
def baseline(tiny_model):
    """Flags of the smallest model, as an ablation's file has them."""
    return shlex.join(str(flag) for flag in tiny_model if flag != "--save_frames")  # which the ablation sets itself


@pytest.fixture(scope="module")
def write_ablation(baseline):
    """Writes two experiments of two prompts, with `changes`; a key that is None is left out."""

    def write(folder: Path, **changes) -> Path:
        prompts = folder / "prompts.txt"
        content = {"prompt_file": str(prompts), "count": 2, "seeds": [7], "frames": 6}
        content |= {"baseline": baseline, "experiments": {"eta_0": "--eta 0"}} | changes
        path = folder / "ablation.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        prompt_file(folder, RED, BLUE, "a third that is not counted")
        return path

    return write


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_ablation):
    """The ablation's file and its results."""
    folder = tmp_path_factory.mktemp("made")
    ablation = write_ablation(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert ablate.main([str(ablation), "--output", str(folder / "out")]) == 0
    return ablation, folder / "out"


@pytest.fixture
def results(made, tmp_path):
    """A copy of what git would hold of them: no video."""
    return shutil.copytree(made[1], tmp_path / "out", ignore=shutil.ignore_patterns("runs"))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command; returns its exit status, its output, and its lines of errors."""
    monkeypatch.chdir(ROOT)

    def call(*arguments):
        status = ablate.main([str(argument) for argument in arguments])
        output, errors = capsys.readouterr()
        return status, output, [line for line in errors.splitlines() if line.startswith(("error:", "stopped"))]

    return call


@pytest.fixture
def runs(monkeypatch):
    """The experiments of which videos were made or looked for, one by one."""
    names, real = [], ablate.make_videos

    def counted(options, ranks, stop):
        names.append(options.experiment)
        return real(options, ranks, stop)

    monkeypatch.setattr(ablate, "make_videos", counted)
    return names


def numbers(output: Path) -> dict[tuple[str, str], dict[str, float]]:
    videos = json.loads((output / "report.json").read_text())["videos"]
    return {(one["experiment"], one["prompt"]): one["numbers"] for one in videos}


def pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("fifo/*.png"))]


def test_videos_equal_those_of_videocrafter_main_and_are_compared_by_pairs(made, tmp_path, baseline):
    _, output = made
    found = numbers(output)
    assert set(found) == {(experiment, prompt) for experiment in ("baseline", "eta_0") for prompt in (RED, BLUE)}
    assert all({"latent_consistency", "motion", "temporal_flickering"} <= set(of_video) for of_video in found.values())
    rows = json.loads((output / "report.json").read_text())["experiments"]
    (row,) = (row for row in rows if (row["metric"], row["experiment"]) == ("latent_consistency", "eta_0"))
    first, second = (
        found["eta_0", prompt]["latent_consistency"] - found["baseline", prompt]["latent_consistency"]
        for prompt in (RED, BLUE)
    )
    assert row["against"]["mean"] == pytest.approx((first + second) / 2)
    assert row["against"]["mean"] != 0
    assert {"overview.png", "differences.png", "motion.png"} <= {path.name for path in (output / "plots").iterdir()}

    flags = [
        *shlex.split(baseline),
        "--eta",
        0,
        "--seed",
        7,
        "-l",
        6,
        "--save_frames",
        "--output_dir",
        tmp_path / "alone",
    ]
    assert command("-p", prompt_file(tmp_path, BLUE), *flags) == 0
    (alone,) = (tmp_path / "alone").glob("a_blue_star*/t2v")
    (ours,) = output.glob("runs/seed_7/a_blue_star*/eta_0")
    assert pictures(alone) == pictures(ours) != []


def test_a_measured_video_is_not_made_again_and_may_be_deleted(
    made, results, tmp_path, run, runs, write_ablation, baseline
):
    ablation, output = made
    kept = sorted((results / "videos").iterdir())
    assert len(kept) == 4
    assert all(path.stat().st_size < 6000 for path in kept)
    status, table, errors = run(ablation, "--output", results)
    assert (status, errors, runs) == (0, [], [])
    assert table == (output / "table.md").read_text()
    assert numbers(results) == numbers(output)
    assert sorted((results / "videos").iterdir()) == kept
    for changes in ({"seeds": [8]}, {"frames": 5}, {"baseline": f"{baseline} --no-lookahead_denoising"}):
        _, plan, _ = run(write_ablation(tmp_path, **changes), "--output", results, "--dry_run")
        assert "| baseline | 2 | 0 | 0 | 2 |\n| eta_0 | 2 | 0 | 0 | 2 |" in plan
    experiments = {"eta_0": "--eta 0", "eta_1": "--eta 1", "new": "--eta 0.5"}
    _, plan, _ = run(write_ablation(tmp_path, experiments=experiments), "--output", results, "--dry_run")
    assert (
        "| eta_0 | 2 | 2 | 0 | 0 |\n| eta_1 | 2 | 2 | 0 | 0 |\n| new | 2 | 0 | 0 | 2 |" in plan
    )  # 1 is the baseline's
    assert runs == []


def test_a_killed_or_stopped_ablation_resumes(made, tmp_path, run, runs, monkeypatch):
    ablation, undisturbed = made
    output = tmp_path / "out"
    words = [sys.executable, "scripts/ablate.py", ablation, "--output", output]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(output.glob("videos/[!.]*.json")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    there = len(list(output.glob("videos/[!.]*.json")))
    assert 1 <= there < 4

    def disturbed(source, instruments, *, limit):
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(source, instruments, limit=limit)

    with monkeypatch.context() as patch:
        patch.setattr(ablation_run, "measure", disturbed)
        status, _, errors = run(ablation, "--output", output)
    assert (status, len(errors), len(runs)) == (143, 1, 1)
    assert run(ablation, "--output", output)[0] == 0
    assert len(runs) == 4 - there
    assert numbers(output) == numbers(undisturbed)


def test_fewer_frames_are_measured_on_the_longer_videos_that_exist(made, tmp_path, run, write_ablation):
    shutil.copytree(made[1], tmp_path / "out")
    assert run(write_ablation(tmp_path, frames=5), "--output", tmp_path / "out")[0] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [video["frames"] for video in report["videos"]] == [5] * 4


def test_an_experiment_whose_flags_changed_needs_overwrite(made, tmp_path, run, runs, write_ablation):
    shutil.copytree(made[1], tmp_path / "out")
    ablation = write_ablation(tmp_path, experiments={"eta_0": "--eta 0.5"})
    words = (ablation, "--output", tmp_path / "out")
    status, _, errors = run(*words)
    assert (status, len(errors)) == (1, 3)
    assert all("--eta was 0" in line and "--overwrite" in line for line in errors[:2])
    assert "| eta_0 | 2 | 0 | 0 | 2 |" in run(*words, "--overwrite", "--dry_run")[1]
    del runs[:]
    status, _, errors = run(*words, "--overwrite")
    assert (status, errors, runs) == (0, [], ["eta_0", "eta_0"])


def test_a_failed_video_does_not_stop_the_others(made, results, run, runs):
    ablation, output = made
    of = {path: json.loads(path.read_text())["of"]["settings"] for path in (results / "videos").iterdir()}
    (kept,) = (path for path in of if (of[path]["the prompt"], of[path]["--eta"]) == (RED, 0))
    kept.unlink()
    (folder,) = output.glob("runs/seed_7/a_red_circle*/eta_0")
    place = results / folder.relative_to(output)
    place.parent.mkdir(parents=True)
    place.touch()  # a file is where the video's folder should be
    status, table, errors = run(ablation, "--output", results)
    assert status == 1
    assert RED in errors[0]
    assert "1 videos failed" in errors[1]
    assert "- missing: eta_0: 1 of 2 videos" in table
    place.unlink()
    assert run(ablation, "--output", results, "--only", "baseline")[0] == 0
    assert run(ablation, "--output", results, "--keep", "nothing")[0] == 0
    assert runs == ["eta_0", "eta_0"]
    assert not place.exists()
    assert numbers(results) == numbers(output)


def test_each_video_is_made_by_one_of_several_processes(made, run, monkeypatch, tmp_path):
    shares = []

    def share(trials, instruments, **_):
        shares.append([(trial.experiment, trial.pair) for trial in trials])
        return 0

    monkeypatch.setattr(ablate, "make_and_measure", share)
    for rank in range(3):
        assert run(made[0], "--output", tmp_path / "out", "--num_processes", 3, "--rank", rank)[0] == 0
    trials = trials_of(read_ablation(made[0]), tmp_path, rank=0, num_processes=1)
    assert sorted(chain(*shares)) == sorted((trial.experiment, trial.pair) for trial in trials)
    assert sorted(map(len, shares)) == [1, 1, 2]


def test_the_shipped_ablation_is_valid_and_its_videos_are_distinct(monkeypatch):
    monkeypatch.chdir(ROOT)
    ablation = read_ablation(ROOT / "configs/ablations/fifo.yaml")
    trials = trials_of(ablation, Path("runs"), rank=0, num_processes=1)
    assert len(trials) == 13 * 32
    assert len({json.dumps(trial.identity, sort_keys=True) for trial in trials}) == len(trials)


@pytest.mark.parametrize("name", ["fifo.yaml", "ablation_fifo.yaml"])
def test_the_default_output_is_named_after_the_file(name):
    assert default_output(Path("somewhere") / name) == Path("results/ablation_fifo")


def test_the_documented_example_is_valid(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "lvdm/evaluation/README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    path = tmp_path / "ablation.yaml"
    path.write_text(example)
    assert len(trials_of(read_ablation(path), Path("runs"), rank=0, num_processes=1)) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "'seed'"),
        ({"frames": None}, "the key frames"),
        ({"frames": "ten"}, "frames 'ten' int"),
        ({"frames": True}, "frames True int"),
        ({"count": 0}, "count 0"),
        ({"count": 4}, "count 4 3"),
        ({"seeds": [1, 1]}, "seeds [1, 1]"),
        ({"seeds": []}, "seeds []"),
        ({"prompt_file": "nowhere.txt"}, "baseline --prompt_file 'nowhere.txt'"),
        ({"experiments": {"a": "--eta 2"}}, "experiments.a --eta 2"),
        ({"experiments": {"a": "--no_such_flag"}}, "experiments.a --no_such_flag"),
        ({"experiments": {"a": "--mode t2v_seed"}}, "experiments.a t2v_seed takes no image"),
        ({"experiments": {"a": "--seed 5"}}, "experiments.a --seed"),
        ({"experiments": {"a": "--prompt_file=x"}}, "experiments.a --prompt_file=x"),
        ({"experiments": {"a": "--prompt x"}}, "experiments.a --prompt"),
        ({"experiments": {"a": "--no-save_frames"}}, "experiments.a --no-save_frames"),
        ({"experiments": {"a": "--ckpt_path nowhere.ckpt"}}, "experiments.a --ckpt_path nowhere.ckpt"),
        ({"experiments": {"a": 5}}, "experiments.a 5"),
        ({"experiments": {"a": "'"}}, "experiments.a"),
        ({"experiments": {"a/b": ""}}, "experiments.a/b --experiment"),
        ({"experiments": {"baseline": ""}}, "experiments.baseline"),
        ({"baseline": "--endless"}, "baseline --endless"),
    ],
)
def test_an_invalid_ablation_is_an_error_of_one_line(changes, words, tmp_path, run, write_ablation):
    ablation = write_ablation(tmp_path, **changes)
    status, output, errors = run(ablation, "--output", tmp_path / "out")
    assert (status, output, len(errors)) == (2, "", 1)
    for word in [str(ablation), *words.split()]:
        assert word in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["ABLATION", "--only", "eta_1"], "--only 'eta_1': allowed are baseline, eta_0"),
        (["ABLATION", "--num_processes", "2", "--rank", "2"], "--rank 2: must be from 0 to 1"),
    ],
)
def test_an_invalid_flag_is_an_error_of_one_line(arguments, words, made, tmp_path, run):
    status, output, errors = run(*(made[0] if argument == "ABLATION" else argument for argument in arguments))
    assert (status, output, len(errors)) == (2, "", 1)
    assert words in errors[0]
