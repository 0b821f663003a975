"""Every setting is declared once, and says what it affects."""

import ast
from dataclasses import field, fields, make_dataclass, replace

import pytest
from helpers import ROOT

from lvdm.cli.arguments import build_parser, parse_args
from lvdm.io.prompts import Prompt
from lvdm.pipeline.mode import Mode
from lvdm.pipeline.options import BASE_CLIP, FILES, PIXELS, Options
from lvdm.pipeline.resolve import EMBEDDED
from lvdm.pipeline.settings import Affects, identity_of, settings_of
from lvdm.pipeline.video import videos_of

PROMPT = Prompt("a red circle", 1)
SCHEDULE = Prompt("", 1, scheduled=((0, "a red circle"), (40, "a blue star")))

# Another value for each setting that affects pixels or files, where it applies.
OTHER = {
    "mode": Mode.parse("t2v_unilatent"),
    "seed": 5,
    "negative_prompt": "blurred",
    "prompt_blend": 4,
    "height": 128,
    "width": 128,
    "fps": 24,
    "video_length": 8,
    "num_partitions": 2,
    "eta": 0.5,
    "plan": "plateau:2",
    "timesteps": tuple(range(63, -1, -1)),
    "context_level": 20,
    "interpolate": 2,
    "unconditional_guidance_scale": 3.0,
    "guidance_rescale": 0.7,
    "distilled_guidance": 5.0,
    "motion_guidance": 0.1,
    "motion_share": 0.3,
    "lookahead_denoising": False,
    "qcache_weight": 0.5,
    "queue_scale": True,
    "base_spacing": "videocrafter",
    "precision": "bf16",
    "compile": True,
    "output_fps": 30,
    "formats": ("gif", "mp4"),
    "crf": 30,
    "save_frames": True,
    "save_queue": True,
}
NEEDS_ANOTHER_SETTING = {
    "prompt_blend": {},
    "qcache_weight": {"mode": Mode.parse("t2v_TTqcache")},
    "motion_share": {"motion_guidance": 0.1},
    "crf": {"formats": ("mp4",)},
}
# Names that states of the first versions lack: a video goes on with them if they do not apply.
LATER = {
    "--plan", "--timesteps", "--context_level", "--continue_from (its content)", "--keep_source", "--interpolate",
    "--picture_end (its content)", "--base_ckpt_path (its content)", "--guidance_rescale", "--distilled_guidance",
    "--motion_guidance", "--motion_share",
}  # fmt: skip
OF_FILES = {
    "config",
    "ckpt_path",
    "base_ckpt_path",
    "image_fit",
    "picture_end",
    "continue_from",
    "keep_source",
}  # other contents; tested with runs


@pytest.fixture
def options():
    return parse_args(["--config", str(ROOT / EMBEDDED), "--device", "cpu", "--precision", "fp32"])


def identity(options, *, affects=PIXELS | FILES, prompt=SCHEDULE):
    return identity_of(options, prompt, {"config": "1", "ckpt_path": "2"}, affects=affects)


def test_every_setting_says_what_it_affects_and_has_one_line_of_help():
    for name, setting in settings_of(Options).items():
        assert isinstance(setting.affects, Affects), name
        assert setting.help == setting.help.strip().rstrip("."), name
        assert "\n" not in setting.help, name


def test_a_setting_that_does_not_say_what_it_affects_is_an_error():
    for bare in (field(default=1), field(default=1, metadata={"help": "a number"})):
        with pytest.raises(TypeError, match=r"Options\.new: say what it affects"):
            settings_of(make_dataclass("Options", [("new", int, bare)]))


def settings_read(tree, owners):
    """The names of all attributes below `tree` that are read of objects with the names `owners`."""

    def name_of(node):
        return node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)

    reads = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load))
    return {node.attr for node in reads if name_of(node.value) in owners}


def test_every_setting_is_read():
    """A flag that nothing reads does nothing. Only reads of `options` count, and of `self` in Derived."""
    declarations, derived = (ROOT / f"lvdm/pipeline/{name}.py" for name in ("options", "derived"))
    files = {*(ROOT / "lvdm").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), ROOT / "videocrafter_main.py"}
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files - {declarations}]
    found = set().union(*(settings_read(tree, {"options"}) for tree in trees))
    found |= settings_read(ast.parse(derived.read_text(encoding="utf-8")), {"self"})
    assert settings_of(Options).keys() - found == set()


def test_parser_and_identity_name_no_setting():
    """They are made of the declarations; only the mode and the config are needed before there are options."""
    text = "".join((ROOT / "lvdm" / path).read_text() for path in ("cli/arguments.py", "pipeline/settings.py"))
    for name in settings_of(Options).keys() - {"mode", "config"}:
        assert f'"{name}"' not in text, name
        assert f'"--{name}"' not in text, name


def test_what_affects_pixels_or_files_is_part_of_the_identity(options):
    declared = {name for name, setting in settings_of(Options).items() if setting.affects & (PIXELS | FILES)}
    assert declared == OTHER.keys() | OF_FILES
    for name, value in OTHER.items():
        before = replace(options, **NEEDS_ANOTHER_SETTING.get(name, {}))
        changed = replace(before, **{name: value})
        differing = {flag for flag, now in identity(changed).items() if identity(before)[flag] != now}
        assert f"--{name}" in differing, name


def test_what_affects_nothing_changes_no_identity(options):
    for declared in fields(Options):
        if not settings_of(Options)[declared.name].affects:
            assert f"--{declared.name}" not in identity(options)
            assert f"--{declared.name}" not in identity(options, affects=BASE_CLIP)


def test_settings_that_do_not_apply_change_no_identity(options):
    """A run goes on although a setting was changed that has no meaning in it."""
    plain = identity(options, prompt=PROMPT)
    for changes in (
        {"prompt_blend": 4},
        {"qcache_weight": 0.5},
        {"crf": 30},
        {"image_fit": "pad"},
        {"keep_source": False},
    ):
        assert identity(replace(options, **changes), prompt=PROMPT) == plain


def test_what_only_the_queue_feels_leaves_the_base_clip(options):
    of_clip = identity(options, affects=BASE_CLIP)
    for name in ("lookahead_denoising", "queue_scale", "qcache_weight", "output_fps", "formats", "save_queue"):
        assert identity(replace(options, **{name: OTHER[name]}), affects=BASE_CLIP) == of_clip
    for name in ("eta", "num_partitions", "fps", "precision", "negative_prompt"):
        assert identity(replace(options, **{name: OTHER[name]}), affects=BASE_CLIP) != of_clip
    assert identity(replace(options, device="cuda:0"), affects=BASE_CLIP) != of_clip
    assert identity(replace(options, device="cuda:0")) == identity(options)  # a run may go on elsewhere


def test_identity_has_the_names_that_states_on_disks_have(options):
    """States of earlier versions hold these names: with others no run could go on."""
    (video,) = videos_of([PROMPT], options, digest="12ab")
    assert video.settings.keys() == {
        "--mode", "--seed", "the prompt", "the picture", "--image_fit", "--negative_prompt", "--prompt_blend",
        "--config (its model)", "--ckpt_path (its content)", "--height", "--width", "--fps", "--video_length",
        "--num_partitions", "--eta", "--unconditional_guidance_scale", "--lookahead_denoising", "--qcache_weight",
        "--queue_scale", "--base_spacing", "--precision", "--compile", "--output_fps", "--formats", "--crf",
        "--save_frames", "--save_queue",
    } | LATER  # fmt: skip
    assert all(video.settings[name] is None for name in LATER)
    assert video.settings["--compile"] is None
    assert video.settings["--formats"] == ["gif"]


def test_help_shows_every_flag_with_its_default_and_begins_with_examples():
    words = " ".join(build_parser(ROOT / EMBEDDED).format_help().split())
    for name, setting in settings_of(Options).items():
        flags = f"--{name}" if setting.short is None else f"{setting.short} "
        assert flags in words
        assert f"{setting.help} (default: " in words, name
    assert "height in pixels (default: 64, from the config)" in words
    assert words.index("examples:") < words.index("options:")
    assert words.count("python videocrafter_main.py --") == 3
