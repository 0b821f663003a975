"""The gallery finds the videos of results, and its page plays them in step in a real browser.

Every frame of the test videos shows its number in black and white blocks, so that tests read it off the screen.
"""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import imageio.v3 as iio
import numpy as np
import pytest
from helpers import ROOT, load_script
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from lvdm.io.results import find_results
from lvdm.io.writers.gif import GifWriter
from lvdm.io.writers.mp4 import Mp4Writer
from lvdm.io.writers.video_files import open_files
from lvdm.web.gallery.curves import read_curves
from lvdm.web.gallery.media import Movie, from_gif
from lvdm.web.gallery.page import column_names, relative_url, script_json

gallery = load_script("gallery")

HOSTILE = """</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1"> "'&amp; {{data}} ü 雪"""
AWKWARD = """a #1 100%41? "ü" '<b>' 雪"""
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")

BITS = 8
HEIGHT, WIDTH = 64, 96  # pixels; four blocks each


def numbered(number: int) -> np.ndarray:
    """(64, 96, 3) uint8: two rows of blocks are the bits of `number`, the two below them their opposites."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)]).reshape(2, 4)
    blocks = np.concatenate([bits, 1 - bits]).astype(np.uint8) * 255
    return np.repeat(blocks.repeat(HEIGHT // 4, 0).repeat(WIDTH // 4, 1)[..., None], 3, axis=2)


def number_in(picture: np.ndarray) -> int:
    """The number of a frame that is shown in `picture` (H, W, 3), at any size and contrast."""
    height, width, _ = picture.shape
    centers = picture[height // 8 :: height // 4, width // 8 :: width // 4].mean(axis=2)[:4, :4]
    bits = (centers[:2] > centers[2:]).flatten()
    return int(sum(1 << bit for bit in range(BITS) if bits[bit]))


def write_mp4(path: Path, frames: int, *, fps: int = 8) -> None:
    with Mp4Writer(path, fps=fps, comment="") as sink:
        for number in range(frames):
            sink.write(numbered(number))


def write_foreign_mp4(path: Path, frames: int, *, fps: int = 8) -> None:
    """As other programs do: one key frame for all, frames in another order than they are shown."""
    iio.imwrite(path, [numbered(number) for number in range(frames)], fps=fps, codec="libx264", macro_block_size=1,
                output_params=["-bf", "2", "-g", "250"])  # fmt: skip


def write_gif(path: Path, frames: int, *, fps: int = 8) -> None:
    with GifWriter(path, fps=fps, comment="") as sink:
        for number in range(frames):
            sink.write(numbered(number))


def write_record(folder: Path, prompt: str, **others: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"prompt": prompt, "seed": 7, "frames": 1, "settings": {"--mode": folder.name, "--eta": 1.0}}
    (folder / f"{folder.name}.json").write_text(json.dumps(record | others), encoding="utf-8")


def put(source: Path, root: Path, prompt_folder: str, experiment: str, prompt: str) -> Path:
    """A result whose video is `source`."""
    folder = root / prompt_folder / experiment
    write_record(folder, prompt)
    shutil.copy(source, folder / f"{experiment}{source.suffix}")
    return folder


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_mp4(folder / "long.mp4", 40)
    write_mp4(folder / "short.mp4", 24)
    write_foreign_mp4(folder / "foreign.mp4", 40)
    write_gif(folder / "gif.gif", 40)
    return folder


@pytest.fixture(scope="module")
def results(media, tmp_path_factory) -> Path:
    """Two prompts: one with four kinds of videos, one with a hostile prompt and a broken video."""
    root = tmp_path_factory.mktemp("some results #1") / "model" / "random_noise"
    put(media / "long.mp4", root, "red", "t2v", "a red circle")
    put(media / "short.mp4", root, "red", "short", "a red circle")
    put(media / "foreign.mp4", root, "red", AWKWARD, "a red circle")
    put(media / "gif.gif", root, "red", "of_gif", "a red circle")
    put(media / "long.mp4", root, "100% #blue?", "t2v", HOSTILE)
    put(media / "short.mp4", root, "100% #blue?", "short", HOSTILE)
    damaged = put(media / "long.mp4", root, "100% #blue?", "of_gif", HOSTILE) / "of_gif.mp4"
    data = bytearray(damaged.read_bytes())
    middle = data.index(b"mdat") + 4
    data[middle:] = bytes(len(data) - middle)  # its headers are in front of that, and whole
    damaged.write_bytes(data)
    return root.parent.parent


@pytest.fixture(scope="module")
def metrics(results) -> Path:
    """A report on two of them, one of them measured from its pictures, each curve with its own window."""
    path = results / "report.json"
    red = next(results.rglob("red"))
    measured = {
        red / "t2v" / "fifo": {"calm": (16, [1.0, 0.75, 0.5]), "drift": (20, [0, 2])},
        "elsewhere/t2v/t2v.mp4": {},
        (red / "short" / "short.mp4").relative_to(results): {"calm": (8, [0.9, None, None]), "no": (8, [None])},
    }
    videos = [
        {
            "path": str(frames),
            "curves": {
                name: {"window": window, "values": values, "counts": [window] * len(values)}
                for name, (window, values) in curves.items()
            },
        }
        for frames, curves in measured.items()
    ]
    path.write_text(json.dumps({"videos": videos}))
    return path


def make(capsys, *arguments: str | Path) -> str:
    """What the command prints; it must succeed."""
    assert gallery.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


# The Python part.


def test_movie_properties_equal_those_of_the_decoded_video(media):
    for name, frames in (("long.mp4", 40), ("short.mp4", 24), ("foreign.mp4", 40)):
        movie = Movie.read(media / name)
        assert (movie.frames, movie.fps, movie.width, movie.height) == (frames, 8, WIDTH, HEIGHT)
        assert [number_in(frame) for frame in iio.imiter(movie.path)] == list(range(frames))


def test_an_mp4_that_is_cut_off_anywhere_is_an_error(media, tmp_path):
    data = (media / "short.mp4").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut.mp4").write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut.mp4 is not a complete MP4"):
            Movie.read(tmp_path / "cut.mp4")


def test_an_mp4_made_of_a_gif_has_its_frames_and_is_made_once(media, tmp_path):
    odd = tmp_path / "odd.gif"
    frames = [np.pad(numbered(number), ((0, 1), (0, 1), (0, 0))) for number in range(5)]
    iio.imwrite(odd, frames, duration=250)
    for gif, fps, count in ((media / "gif.gif", 8, 40), (odd, 4, 5)):
        movie = from_gif(gif, tmp_path / "new")
        assert (movie.frames, movie.fps, movie.width, movie.height) == (count, fps, WIDTH, HEIGHT)
        assert [number_in(frame) for frame in iio.imiter(movie.path)] == list(range(count))
        made = movie.path.stat().st_mtime_ns
        assert from_gif(gif, tmp_path / "new").path.stat().st_mtime_ns == made


def test_videos_that_cannot_be_read_are_listed(media, tmp_path, capsys):
    root = tmp_path / "results"
    put(media / "short.mp4", root, "good", "t2v", "a good one")
    put(media / "short.mp4", root, "notes", "t2v", "")
    (root / "notes/t2v/other.json").write_text("no record")
    write_record(root / "empty/t2v", "without a video")
    (root / "broken/t2v").mkdir(parents=True)
    (root / "broken/t2v/t2v.json").write_text("{")
    for name, suffix in (("mp4", "mp4"), ("gif", "gif")):
        write_record(root / name / "t2v", "not a video")
        (root / name / f"t2v/t2v.{suffix}").write_text("not a video")
    for length in (260, 263):  # Pillow has another exception for each
        write_record(root / f"cut{length}/t2v", "half a video")
        (root / f"cut{length}/t2v/t2v.gif").write_bytes((media / "gif.gif").read_bytes()[:length])
    assert gallery.main([str(root), "-o", str(tmp_path / "page.html")]) == 0
    out, err = capsys.readouterr()
    assert "2 videos, 6 left out" in out
    lines = err.splitlines()
    assert len(lines) == 6
    for name in ("empty", "broken", "mp4", "gif", "cut260", "cut263"):
        assert sum(line.startswith(f"left out: {root / name / 't2v'}") for line in lines) == 1


def test_rows_are_prompts_and_columns_experiments(media, tmp_path):
    for root, folder, experiment, seed in (
        ("a/x", "p", "t2v", 1), ("a/x", "p", "other", 1), ("b/x", "p", "t2v", 1), ("a/x", "p2", "t2v", 2),
        ("a/x", "p_seed1", "t2v", 1),
    ):  # fmt: skip
        put(media / "short.mp4", tmp_path / root, folder, experiment, "p")
        write_record(tmp_path / root / folder / experiment, "p", seed=seed)
    videos, problems = find_results([tmp_path, tmp_path / "a"])
    assert (len(videos), problems) == (5, [])
    names = column_names(videos)
    assert sorted(set(names.values())) == ["a/x/t2v", "b/x/t2v", "other"]
    gallery.main([str(tmp_path), "-o", str(tmp_path / "page.html")])
    rows = data_of(tmp_path / "page.html")["rows"]
    assert [(row["seed"], sorted(row["cells"])) for row in rows] == [
        ("1", ["a/x/t2v", "b/x/t2v", "other"]), ("2", ["a/x/t2v"]), ("1", ["a/x/t2v"]),
    ]  # fmt: skip


def test_seeds_in_separate_folders_are_one_experiment(media, tmp_path):
    """As in the runs/ of an ablation."""
    for seed in (1, 2):
        for experiment in ("baseline", "eta_0"):
            folder = put(media / "short.mp4", tmp_path / f"seed_{seed}", "p", experiment, "p")
            write_record(folder, "p", seed=seed)
    videos, _ = find_results([tmp_path])
    assert set(column_names(videos).values()) == {"baseline", "eta_0"}


def data_of(page: Path) -> dict:
    (data,) = re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(data)


@pytest.mark.parametrize("output", ["page.html", "results/page.html", "an other/ö #/page.html"])
def test_urls_are_relative_to_the_page_and_lead_to_the_videos(results, output, tmp_path, capsys, monkeypatch):
    (tmp_path / "results").symlink_to(results)
    monkeypatch.chdir(tmp_path)
    make(capsys, "results/model", "-o", output)
    sources = [cell["src"] for row in data_of(tmp_path / output)["rows"] for cell in row["cells"].values()]
    assert len(sources) == 7
    for source in sources:
        assert re.fullmatch(r"[\w./%~-]+", source, flags=re.ASCII)
        assert (tmp_path / output).parent.joinpath(unquote(source)).is_file()


def test_a_file_name_with_a_colon_is_not_a_url_scheme(tmp_path):
    assert relative_url(tmp_path / "javascript:x.mp4", tmp_path) == "javascript%3Ax.mp4"


def test_json_cannot_end_its_script_element():
    assert json.loads(script_json({"a": HOSTILE + "\u2028\ud800"})) == {"a": HOSTILE + "\u2028\ud800"}
    assert "<" not in script_json(HOSTILE)


def test_curves_are_assigned_to_their_videos(results, metrics):
    videos, _ = find_results([results])
    curves = {folder.name: found for folder, found in read_curves(metrics, videos).items()}
    assert set(curves) == {"t2v", "short"}
    assert {name: (curve.window, curve.values) for name, curve in curves["t2v"].items()} == {
        "calm": (16, (1.0, 0.75, 0.5)), "drift": (20, (0, 2)),
    }  # fmt: skip
    assert list(curves["short"]) == ["calm"]


def test_the_page_shows_the_curves_that_evaluate_measured(tmp_path, capsys):
    """From frames to the page, by both commands: what one writes is what the other reads."""
    root, output = tmp_path / "results", tmp_path / "measured"
    for experiment, formats in (("pictures", ["gif", "mp4"]), ("mp4", ["mp4"]), ("gif", ["gif"])):
        folder = root / "p" / experiment
        pictures = experiment == "pictures"
        with open_files(folder, experiment, formats=formats, fps=8, comment="", save_frames=pictures) as files:
            for level in range(40):
                files.write(np.full((HEIGHT, WIDTH, 3), 60 + level, np.uint8))
        write_record(folder, "p")
    finished = subprocess.run(
        [sys.executable, "scripts/evaluate.py", str(root), "--output", str(output)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    make(capsys, root, "-o", tmp_path / "page.html", "--metrics", output / "report.json")
    (row,) = data_of(tmp_path / "page.html")["rows"]
    assert set(row["cells"]) == {"pictures", "mp4", "gif"}
    for cell in row["cells"].values():
        drift = cell["curves"]["brightness_drift"]
        assert drift["window"] == 16
        assert drift["values"] == pytest.approx([0, 16, 28], abs=0.6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing"], "RESULTS 'missing': expected a folder"),
        (["empty"], "RESULTS empty: expected at least one finished video"),
        (["good", "-o", "empty"], "--output 'empty' is a folder"),
        (["good", "--metrics", "missing.json"], "--metrics 'missing.json': cannot be read"),
        (["good", "-o", "good/p/t2v/t2v.mp4/page.html"], "--output 'good/p/t2v/t2v.mp4/page.html': cannot be written"),
        (["good", "--metrics", "{"], "not a report.json of scripts/evaluate.py"),
        (["good", "--metrics", "[]"], "not a report.json of scripts/evaluate.py"),
        (["good", "--metrics", '{"videos": []}'], "none of its 0 videos is in this gallery"),
        (["good", "--metrics", '{"videos": [{"path": "t2v.mp4", "curves": [1]}]}'], "not a report.json"),
        (
            ["good", "--metrics", '{"videos": [{"path": "t2v.mp4", "curves": {"a": {"window": 1, "values": "b"}}}]}'],
            "'b'",
        ),
    ],
)
def test_invalid_input_is_an_error_of_one_line(media, tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    put(media / "short.mp4", Path("good"), "p", "t2v", "p")
    Path("empty").mkdir()
    if arguments[-1][0] in "{[":
        Path("metrics.json").write_text(arguments[-1])
        arguments = [*arguments[:-1], "metrics.json"]
    assert gallery.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert sentence in err
    assert not Path("gallery.html").exists()


# The page in a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(results, metrics, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "gallery.html"
    assert gallery.main([str(results), "-o", str(path), "--metrics", str(metrics)]) == 0
    return path


class Visit:
    """A page that is open in a browser, with what went wrong in it and what it asked for."""

    def __init__(self, page: Page, path: Path):
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())

    def row(self, words: str) -> Locator:
        return self.page.locator(".row", has_text=words)

    def scrub(self, row: Locator, frame: int) -> None:
        row.locator("input[type=range]").fill(str(frame))

    def on_screen(self, row: Locator) -> dict[str, int]:
        """The numbers of the frames that are on the screen at one moment, by experiment."""
        boxes = row.evaluate(
            """row => [...row.querySelectorAll("figure:not([hidden]):has(video)")].map(figure => {
                const { x, y, width, height } = figure.querySelector("video").getBoundingClientRect();
                return [figure.dataset.experiment, x, y, width, height];
            })"""
        )
        screen = np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))
        return {
            name: number_in(screen[round(y) : round(y + height), round(x) : round(x + width)])
            for name, x, y, width, height in boxes
        }

    def wait_for(self, row: Locator, frames: dict[str, int]) -> None:
        """Until these frames are on the screen."""
        for _ in range(60):
            seen = self.on_screen(row)
            if seen == frames:
                return
            self.page.wait_for_timeout(100)
        assert seen == frames


@pytest.fixture
def visit(browser, page_file, request) -> Iterator[Visit]:
    """The page, at rest, as people see it who want no motion; parametrized: with other options of the browser."""
    options = {"viewport": {"width": 1300, "height": 900}, "reduced_motion": "reduce"} | getattr(request, "param", {})
    context = browser.new_context(**options)
    visit = Visit(context.new_page(), page_file)
    yield visit
    assert visit.errors == []
    assert all(url.startswith(("file:", "data:")) for url in visit.requests)
    context.close()


RED = ("t2v", "short", AWKWARD, "of_gif")


def at(frame: int, names: Sequence[str] = RED) -> dict[str, int]:
    """What the players of the red circle are to show when their row is at `frame`."""
    return {name: min(frame, 23) if name == "short" else frame for name in sorted(names)}


@in_browser
def test_the_slider_seeks_all_players_to_the_same_frame(visit):
    row = visit.row("a red circle")
    visit.wait_for(row, at(0))
    for frame in (17, 18, 39, 23, 24, 1):
        visit.scrub(row, frame)
        visit.wait_for(row, at(frame))
        assert row.locator(".controls output").inner_text() == f"frame {frame} / 39"
        assert row.locator("figure", has_text="t2v").locator(".frame").inner_text() == f"{frame} / 39"
        short = row.locator("figure", has_text="short")
        assert short.locator(".frame").inner_text() == f"{min(frame, 23)} / 23"
        assert ("holds its last frame" in short.locator(".note").inner_text()) == (frame > 23)
    assert "from its GIF" in row.locator("figure", has_text="of_gif").locator(".note").inner_text()


@in_browser
@pytest.mark.parametrize("visit", [{"reduced_motion": "no-preference"}], indirect=True)
def test_players_play_in_sync_and_restart_together(visit):
    row = visit.row("a red circle")
    moments = []
    for _ in range(24):
        visit.page.wait_for_timeout(300)
        moments.append(visit.on_screen(row))
    long = [moment["t2v"] for moment in moments]
    assert len(set(long)) > 8
    assert any(after < before for before, after in pairwise(long))
    for moment in moments[2:]:
        numbers = [moment[name] for name in RED if name != "short"]
        assert max(numbers) - min(numbers) <= 1 or {0, 39} <= set(numbers), moments
        assert moment["short"] == 23 if max(numbers) > 24 else abs(moment["short"] - min(numbers)) <= 1, moments
    row.locator(".play").click()
    frame = int(row.locator("input[type=range]").input_value())
    visit.wait_for(row, at(frame))


@in_browser
def test_rows_are_filtered_by_words_and_columns_by_experiment(visit):
    page = visit.page
    shown = page.locator(".row:visible")
    assert (shown.count(), page.locator("#shown").inner_text()) == (2, "2 of 2 prompts")
    page.locator("#search").fill("circle RED")
    assert (shown.count(), page.locator("#shown").inner_text()) == (1, "1 of 2 prompts")
    page.locator("#search").fill("red square")
    assert shown.count() == 0
    assert page.locator("#nothing").is_visible()
    page.locator("#search").fill("")
    for name in ("t2v", AWKWARD, "of_gif"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    row = visit.row("a red circle")
    assert row.locator("figure:visible").count() == 1
    assert row.locator("input[type=range]").get_attribute("max") == "23"
    visit.scrub(row, 23)
    visit.wait_for(row, {"short": 23})


@in_browser
def test_the_page_is_usable_with_the_keyboard(visit):
    page, row, other = visit.page, visit.row("a red circle"), visit.row("script")
    page.wait_for_function("document.querySelectorAll('.row video[src]').length == 7")
    visit.wait_for(row, at(0))
    page.keyboard.press("ArrowRight")  # nothing has the focus: all rows in sight
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    visit.wait_for(row, at(1))
    assert other.locator("input[type=range]").input_value() == "1"
    play = row.locator(".play")
    for _ in range(40):
        page.keyboard.press("Tab")
        if play.evaluate("button => button === document.activeElement"):
            break
    assert play.evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    assert play.get_attribute("aria-label") == "Play"
    page.keyboard.press("Enter")
    page.wait_for_function("name => document.activeElement.getAttribute('aria-label') == name", arg="Pause")
    assert other.locator(".play").get_attribute("aria-label") == "Play"
    page.keyboard.press("Tab")  # to the scrubber
    page.keyboard.press("Space")
    page.wait_for_function("button => button.getAttribute('aria-label') == 'Play'", arg=play.element_handle())
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    visit.wait_for(row, at(1))
    assert row.locator("input[type=range]").get_attribute("aria-valuetext") == "frame 1, the last is 39"
    page.keyboard.press("Tab")
    panel = page.locator("#settings")
    assert panel.is_visible()
    assert "--eta" in panel.inner_text()
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    page.locator("#search").fill("red")
    page.keyboard.press("Space")
    assert page.locator("#search").input_value() == "red "
    assert play.get_attribute("aria-label") == "Play"


@in_browser
def test_settings_show_on_hover_and_stay_after_a_click(visit):
    page, panel, row = visit.page, visit.page.locator("#settings"), visit.row("a red circle")
    visit.wait_for(row, at(0))  # while it loads, the button may move away from the pointer
    about = row.get_by_role("button", name="Settings of t2v")
    about.hover()
    assert panel.is_visible()
    assert panel.locator("dd.differs").all_inner_texts() == ["t2v"]
    assert about.get_attribute("aria-expanded") == "true"
    page.mouse.move(5, 5)
    assert not panel.is_visible()
    about.click()
    page.mouse.move(5, 5)
    assert panel.is_visible()
    about.click()
    assert not panel.is_visible()
    assert about.get_attribute("aria-expanded") == "false"


@in_browser
def test_the_marker_on_a_curve_follows_the_frame(visit):
    row = visit.row("a red circle")
    figure = row.locator("figure", has_text="t2v")
    visit.scrub(row, 20)
    visit.wait_for(row, at(20))
    assert figure.locator(".metric output").inner_text() == "0.7500"
    assert figure.locator(".curve line").get_attribute("x1") == "20.5"
    assert figure.locator(".curve path").get_attribute("d") == "M0 0.080 H16L16 0.500 H32L32 0.920 H40"
    assert row.locator("figure", has_text="short").locator(".metric output").inner_text() == ""  # NaN
    visit.page.locator("#metric select").select_option("drift")
    visit.page.wait_for_timeout(200)
    assert figure.locator(".metric output").inner_text() == "2.000"
    assert not row.locator("figure", has_text="of_gif").locator(".curve").is_visible()


@in_browser
def test_hostile_prompts_are_shown_as_text(visit):
    row = visit.row("window.hacked")
    assert row.locator("h2").inner_text() == f"{HOSTILE} seed 7"
    assert visit.page.evaluate("window.hacked") is None
    assert visit.page.locator("img, .row script").count() == 0
    note = row.locator("figure", has_text="of_gif").locator(".note")
    note.get_by_text("cannot be played").wait_for()
    visit.scrub(row, 30)
    visit.page.wait_for_timeout(500)
    assert visit.on_screen(row) | {"of_gif": 0} == {"t2v": 30, "short": 23, "of_gif": 0}


@in_browser
@pytest.mark.parametrize(
    "visit", [{"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}], indirect=True
)
def test_the_page_fits_a_phone(visit):
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth && innerWidth <= 390")
    row = visit.row("a red circle")
    strips = visit.page.locator(".strip")
    strips.first.evaluate("strip => { strip.scrollLeft = strip.scrollWidth; }")
    row.locator("figure").last.locator("video[src]").wait_for()
    visit.page.wait_for_timeout(300)
    offsets = [strip.evaluate("strip => strip.scrollLeft") for strip in strips.all()]
    assert offsets[0] > 390
    assert offsets == [offsets[0]] * 2
    row.locator("figure").last.locator(".about").tap()
    box = visit.page.locator("#settings").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert 0 <= box["y"] <= box["y"] + box["height"] <= 844


@in_browser
@pytest.mark.parametrize("visit", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_the_theme_button_switches_between_light_and_dark(visit):
    def brightness() -> int:
        color = visit.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return int(re.findall(r"\d+", color)[0])

    button = visit.page.locator("#theme")
    before, name = brightness(), button.inner_text()
    assert (before < 60, name) in {(True, "Light"), (False, "Dark")}
    button.click()
    assert (brightness() < 60) != (before < 60)
    button.click()
    assert brightness() == before
    visit.page.emulate_media(color_scheme="light" if name == "Light" else "dark")
    assert (brightness(), button.inner_text()) == (before, name)  # what was chosen stays


@in_browser
def test_the_theme_follows_the_system_until_one_is_chosen(visit):
    button = visit.page.locator("#theme")
    for scheme, other in (("dark", "Light"), ("light", "Dark")):
        visit.page.emulate_media(color_scheme=scheme)
        button.get_by_text(other).wait_for()


@in_browser
def test_an_embedded_page_needs_no_other_file(browser, results, tmp_path, capsys):
    make(capsys, results, "-o", tmp_path / "page.html", "--embed")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    context = browser.new_context(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
    visit = Visit(context.new_page(), tmp_path / "page.html")
    row = visit.row("a red circle")
    visit.wait_for(row, at(0))
    visit.scrub(row, 33)
    visit.wait_for(row, at(33))
    assert visit.errors == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]
    context.close()


@in_browser
def test_videos_of_very_different_rates_play_together(browser, tmp_path, capsys):
    for fps in (1, 24):
        write_mp4(tmp_path / f"{fps}.mp4", 48, fps=fps)
        put(tmp_path / f"{fps}.mp4", tmp_path / "results", "p", f"fps{fps}", "a prompt")
    make(capsys, tmp_path / "results", "-o", tmp_path / "page.html")
    context = browser.new_context(viewport={"width": 1300, "height": 900}, reduced_motion="no-preference")
    visit = Visit(context.new_page(), tmp_path / "page.html")
    row = visit.row("a prompt")
    visit.page.wait_for_function("row => +row.querySelector('input').value > 3", arg=row.element_handle())
    row.locator(".play").click()
    visit.scrub(row, 30)
    visit.wait_for(row, {"fps1": 30, "fps24": 30})
    assert visit.errors == []
    context.close()


@in_browser
def test_only_videos_near_the_viewport_are_loaded_and_played(browser, media, tmp_path, capsys):
    for number in range(100):
        for experiment in ("a", "b", "c"):
            put(media / "short.mp4", tmp_path / "results", f"p{number:03d}", experiment, f"prompt {number:03d}")
    put(media / "short.mp4", tmp_path / "results", "p000", "constructor", "prompt 000")
    make(capsys, tmp_path / "results", "-o", tmp_path / "page.html")
    context = browser.new_context(viewport={"width": 1300, "height": 900}, reduced_motion="no-preference")
    visit = Visit(context.new_page(), tmp_path / "page.html")
    for words in ("prompt 000", "prompt 099", "prompt 050"):
        row = visit.row(words)
        row.scroll_into_view_if_needed()
        visit.page.wait_for_function(
            "row => [...row.querySelectorAll('video')].every(video => !video.paused)", arg=row.element_handle()
        )
        visit.page.wait_for_timeout(300)
        loaded, playing, unseen = visit.page.evaluate(
            """() => {
                const videos = [...document.querySelectorAll("video[src]")];
                const playing = videos.filter(video => !video.paused).map(video => video.getBoundingClientRect());
                const unseen = playing.filter(({ top, bottom }) => bottom < 0 || top > innerHeight);
                return [videos.length, playing.length, unseen.length];
            }"""
        )
        assert 3 <= playing < loaded <= 36
        assert unseen == 0
    assert visit.errors == []
    context.close()
