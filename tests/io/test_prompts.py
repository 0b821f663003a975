"""Prompt files, --prompt and --image: what they mean, and how errors are reported."""

import json
import re
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from helpers import result_or_sentence
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from lvdm.io.images import Picture
from lvdm.io.prompt_file import read_prompts
from lvdm.io.prompts import Prompt, prompts_from_words, safe_experiment, share


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["prompts.txt", "prompts.csv", "prompts"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_plain_lines(tmp_path, name, newline, mark):
    lines = ["", 'a "cat", sitting', "   ", " über den Wolken, 4k ", "a cat; an image", ""]
    prompts = read_prompts(write(tmp_path, name, mark + newline.join(lines)))
    expected = [(2, 'a "cat", sitting'), (4, "über den Wolken, 4k"), (5, "a cat; an image")]
    assert [(prompt.line, prompt.text) for prompt in prompts] == expected


def test_table(tmp_path):
    rows = [
        "",
        "id, Prompt ,SEED,new_video_length,experiment,image",
        '1,"a cat, sitting",7,20,first.try,cat.png',
        ",,,,,",
        '2,"two',
        'lines",,,,',
        "3,a dog",
        "4,a bird,,,,,,",
    ]
    assert read_prompts(write(tmp_path, "prompts.CSV", "\ufeff" + "\r\n".join(rows))) == [
        Prompt("a cat, sitting", 3, seed=7, new_video_length=20, experiment="first.try"),
        Prompt("two lines", 5),
        Prompt("a dog", 7),
        Prompt("a bird", 8),
    ]


@pytest.fixture
def pictures(tmp_path):
    """Write two different pictures, the second with a `;` in its name; return their folder."""
    (tmp_path / "below").mkdir()
    for name, color in (("cat.png", "red"), ("below/a;b.png", "blue")):
        Image.new("RGB", (20, 20), color).save(tmp_path / name)
    return tmp_path


def test_lines_with_pictures(pictures):
    content = "cat.png;a cat, sitting\n\n below/a;b.png ;  a dog \n"
    prompts = read_prompts(write(pictures, "a.txt", content), with_pictures=True)
    assert [(prompt.line, prompt.text, prompt.picture.path) for prompt in prompts] == [
        (1, "a cat, sitting", pictures / "cat.png"),
        (3, "a dog", pictures / "below/a;b.png"),
    ]


def test_a_table_with_pictures(pictures):
    table = write(pictures, "a.csv", "image,prompt,seed\ncat.png,a cat,4\nbelow/a;b.png,a dog,\n")
    prompts = read_prompts(table, with_pictures=True)
    assert [(prompt.text, prompt.seed, prompt.picture.path.name) for prompt in prompts] == [
        ("a cat", 4, "cat.png"),
        ("a dog", None, "a;b.png"),
    ]
    assert [prompt.picture for prompt in read_prompts(table)] == [None, None]


def test_lines_with_pictures_are_not_prompts_of_other_modes(pictures):
    path = write(pictures, "a.txt", "a cat; sitting\ncat.PNG ;a cat\n")
    with pytest.raises(ValueError, match=f"^--prompt_file {str(path)!r}, line 2: .*i2v"):
        read_prompts(path)


def test_one_text_with_several_pictures_is_several_places(pictures):
    lines = ["cat.png;a cat", "below/a;b.png;a cat", "cat.png;a cat"]
    prompts = read_prompts(write(pictures, "a.txt", "\n".join(lines)), with_pictures=True)
    assert [prompt.repetition for prompt in prompts] == [0, 0, 1]
    assert len({prompt.folder for prompt in prompts}) == 3


@pytest.mark.parametrize(
    ("name", "content", "line", "fault"),
    [
        ("a.txt", "cat.png;a cat\na dog\n", 2, "'a dog' has no ';'"),
        ("a.txt", "a" * 400, 1, f"'{'a' * 57}...' has no ';'; with --mode i2v a line is image;prompt"),
        ("a.txt", "cat.png;\n", 1, "'cat.png;' has no prompt"),
        ("a.txt", "\n;a cat\n", 2, "no picture is named"),
        ("a.txt", "cat.png;a cat\ndog.png;a dog\n", 2, "'dog.png': there is no such picture"),
        ("a.txt", "a.txt;a cat\n", 1, "'a.txt': cannot be read: its content is no PNG"),
        ("a.csv", "prompt,image\na cat,cat.png\na dog,\n", 3, "no picture is named"),
        ("a.csv", "prompt,picture\na cat,cat.png\n", 1, "no 'image' column among 'prompt', 'picture'"),
        ("a.csv", "image;prompt\ncat.png;a cat\n", 1, "separated by commas"),
        ("a.txt", f"{'a' * 400};a cat\n", 1, f"'{'a' * 197}...': cannot be read (File name too long)"),
        ("a.csv", "prompt,image\na cat,dog.png\n", 2, "'dog.png': there is no such picture"),
    ],
)
def test_a_bad_picture_is_named_with_its_line(pictures, name, content, line, fault):
    path = write(pictures, name, content)
    with pytest.raises(ValueError, match="--prompt_file") as caught:
        read_prompts(path, with_pictures=True)
    assert str(caught.value).startswith(f"--prompt_file {str(path)!r}, line {line}: ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_a_csv_has_a_header(tmp_path):
    assert [prompt.text for prompt in read_prompts(write(tmp_path, "a.txt", "prompt,seed\na cat,3\n"))] == [
        "prompt,seed",
        "a cat,3",
    ]


@pytest.mark.parametrize(
    ("name", "content", "where", "fault"),
    [
        ("a.txt", "", "", "no prompts"),
        ("a.txt", "\ufeff\n \r\n", "", "no prompts"),
        ("a.csv", "prompt,seed\n,\n", "", "no prompts"),
        (
            "a.csv",
            "text,seed\na cat,3\n",
            "line 1",
            "no 'prompt' column among 'text', 'seed'; columns are prompt, seed",
        ),
        ("a.csv", "prompt,prompt\na,b\n", "line 1", "'prompt' appears twice"),
        ("a.csv", "prompts,seeds\na cat,3\n", "line 1", "is not known; is it "),
        ("a.csv", "prompt,sed\na cat,3\n", "line 1", "'sed' is not known; is it 'seed'?"),
        ("a.csv", "prompt,seed\na cat,three\n", "line 2", "seed 'three'"),
        ("a.csv", f"prompt,seed\na cat,{'3' * 99}\n", "line 2", f"seed '{'3' * 57}...' is not a whole number from 0"),
        ("a.csv", f"prompt,seed\n,{'3' * 99}\n", "line 2", f"',{'3' * 56}...' has no prompt"),
        ("a.csv", "prompt,seed\na cat,-1\n", "line 2", "seed '-1'"),
        ("a.csv", "prompt,seed\na cat,9223372036854775808\n", "line 2", "seed '9223372036854775808'"),
        ("a.csv", "prompt,new_video_length\n\na cat,0\n", "line 3", "new_video_length '0'"),
        ("a.csv", "prompt,new_video_length\na cat,1.5\n", "line 2", "new_video_length '1.5'"),
        ("a.csv", "prompt,experiment\na cat,../x\n", "line 2", "experiment '../x'"),
        ("a.csv", "prompt,seed\n,3\n", "line 2", "',3' has no prompt"),
        ("a.csv", "prompt,seed\na cat, sitting,3\n", "line 2", "3 cells for 2 columns"),
        ("a.csv", 'prompt\na dog\n"a cat\n\n', "line 3", "not a row of a .csv file"),
        ("a.txt", b"a cat\n\n\xff\xfea dog\n", "line 3", "byte 0xff at offset 7 is not UTF-8"),
        ("a.txt", "a cat".encode("utf-16-le"), "line 1", "a zero byte"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, content, where, fault):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=f"^--prompt_file {str(path)!r}(, |: ){where}") as caught:
        read_prompts(path)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--prompt_file '.*nowhere.txt'"):
        read_prompts(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match=f"--prompt_file {str(tmp_path)!r}"):
        read_prompts(tmp_path)


def test_no_two_entries_share_a_place(tmp_path):
    rows = ["prompt,seed,experiment", *["a cat,,", "a cat,321,", "a cat,,b", "a cat,,a"] * 2, "a/cat,,", "a_cat,,"]
    rows += ["a" * 300 + "b,,", "a" * 300 + "c,,"]
    prompts = read_prompts(write(tmp_path, "a.csv", "\n".join(rows)), experiment="a")
    assert len({(prompt.folder, prompt.experiment) for prompt in prompts}) == len(prompts) == 12
    assert [prompt.repetition for prompt in prompts] == [0, 0, 0, 1, 2, 1, 1, 3, 0, 0, 0, 0]
    assert {prompt.experiment for prompt in prompts} == {"a", "b"}


def test_folder_names():
    cat = Prompt("a cat, 4k (über-cool)_", 1)
    assert cat.folder == "a_cat_4k_ber-cool_-2a575093"
    assert replace(cat, seed=5, repetition=1).folder == f"{cat.folder}_seed5_2"
    assert replace(cat, line=9, new_video_length=3).folder == cat.folder
    assert replace(cat, picture=Picture(Path("x"), "12")).folder != cat.folder
    for text in ("../../etc/passwd", "..", "/", "猫", "-rf \t\r\n", "x" * 1000, "a\\b:c*?\"<>|'$`"):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}-[0-9a-f]{8}", Prompt(text, 1).folder)
    assert Prompt("猫", 1).folder != Prompt("犬", 1).folder


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a b", "é", "a" * 81, "a\n", "Origin"])
def test_unsafe_experiment_names(name):
    with pytest.raises(ValueError, match=r"^--experiment ") as caught:
        safe_experiment(name)
    assert repr(name if len(name) < 80 else f"{'a' * 57}...") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "-", "t2v_TTqcache_attn1_weighted90", "v1.0..", "9" * 80])
def test_safe_experiment_names(name):
    assert safe_experiment(name) == name


def test_shares_are_disjoint_and_complete():
    prompts = [Prompt(str(number), number) for number in range(7)]
    shares = [share(prompts, rank=rank, num_processes=3) for rank in range(3)]
    assert [len(part) for part in shares] == [3, 2, 2]
    assert sorted((prompt for part in shares for prompt in part), key=lambda prompt: prompt.line) == prompts


def test_schedules(pictures):
    content = ' { "0": " a cat; 4k", "64":"a dog" } \n{"0":"a cat; 4k","64":"a dog"}\na bird\n'
    first, second, plain = read_prompts(write(pictures, "a.txt", content))
    assert first.schedule == second.schedule == ((0, "a cat; 4k"), (64, "a dog"))
    assert first.text == second.text == '{"0": "a cat; 4k", "64": "a dog"}'
    assert (first.repetition, second.repetition) == (0, 1)
    assert plain.schedule == ((0, "a bird"),)
    (table,) = read_prompts(write(pictures, "a.csv", 'prompt,seed\n"{""0"": ""a cat"", ""5"": ""a dog""}",3\n'))
    assert (table.schedule, table.seed) == (((0, "a cat"), (5, "a dog")), 3)
    lines = 'below/a;b.png; {"0": "a cat; 4k", "7": "a dog"}\n'
    (animated,) = read_prompts(write(pictures, "b.txt", lines), with_pictures=True)
    assert animated.picture.path == pictures / "below/a;b.png"
    assert animated.schedule == ((0, "a cat; 4k"), (7, "a dog"))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{a cat}", "no JSON object"),
        ('{"0": "a cat"', "no JSON object"),
        ('{"0": "a cat"} and more', "no JSON object"),
        ("{}", "frame 0"),
        ('{"4": "a cat"}', "frame 0"),
        ('{"0": "a cat", "0": "a dog"}', "rises"),
        ('{"0": "a cat", "9": "a dog", "5": "a cow"}', "rises"),
        ('{"0": "a cat", "-3": "a dog"}', "'-3'"),
        ('{"0": "a cat", "1.5": "a dog"}', "'1.5'"),
        ('{"0": "a cat", "5": ""}', "expected a prompt"),
        ('{"0": ["a cat"]}', "expected a prompt"),
        ('{"0": {"1": "a cat"}}', "expected a prompt"),
        (r'{"0": "a \ud800 cat"}', "unpaired surrogate"),
        ('{"0": ' + "[" * 100_000, "no JSON object"),
    ],
)
def test_a_bad_schedule_is_named_with_its_line(tmp_path, line, fault):
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        read_prompts(write(tmp_path, "a.txt", f"a bird\n{line}\n"))
    assert "a.txt', line 2" in str(caught.value)
    assert "\n" not in str(caught.value)


ANY_CHARACTER = st.characters(exclude_categories=())  # halves of characters too
STEPS = st.lists(st.text(ANY_CHARACTER, min_size=1), min_size=1, max_size=5)
SCHEDULES = st.dictionaries(st.text(max_size=3), st.text()).map(json.dumps) | STEPS.map(
    lambda texts: json.dumps({str(7 * number): text for number, text in enumerate(texts)})
)
TEXTS = st.text() | st.text(alphabet='a;,"{}:0\n\r \\') | SCHEDULES
HEADERS = st.sampled_from(["", "prompt\n", "prompt,seed,image\n"])


@given(lines=st.lists(TEXTS), header=HEADERS, mark=st.binary(max_size=4))
@example(lines=[], header="", mark=b"\xef\xbb\xbf")
def test_any_bytes_are_prompts_or_a_sentence(tmp_path_factory, lines, header, mark):
    content = mark + (header + "\n".join(lines)).encode("utf-8", "surrogatepass")
    for name, with_pictures in product(("any.txt", "any.csv"), (False, True)):
        path = write(tmp_path_factory.getbasetemp(), name, content)
        read = partial(read_prompts, path, with_pictures=with_pictures)
        places = [prompt.folder for prompt in result_or_sentence(read, flag="--prompt_file") or []]
        assert len(set(places)) == len(places)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,200}", place) for place in places)


@given(text=st.text(min_size=1), seed=st.none() | st.integers(0, 2**63 - 1), repetition=st.integers(0, 9))
def test_any_prompt_has_a_safe_folder(text, seed, repetition):
    folder = Prompt(text, 1, seed=seed, repetition=repetition).folder
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,200}", folder)


@given(name=st.text(max_size=100))
@example(name="..")
@example(name="a/../b")
def test_any_experiment_name_stays_inside_or_is_refused(tmp_path_factory, name):
    base = tmp_path_factory.getbasetemp()
    if result_or_sentence(lambda: safe_experiment(name), flag="--experiment") is not None:
        assert (base / name).resolve().parent == base.resolve()


def test_prompts_from_words_are_those_of_a_file(pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    texts = [" a cat; 4k", '{"0": "a cat", "64":"a dog"}', "a cat; 4k ", "two\r\nlines"]
    from_words = prompts_from_words(texts, experiment="try.1")
    from_file = read_prompts(write(pictures, "a.txt", "\n".join([*texts[:3], "two lines"])), experiment="try.1")
    assert from_words == from_file
    assert [prompt.folder for prompt in from_words] == [prompt.folder for prompt in from_file]
    assert [prompt.repetition for prompt in from_words] == [0, 0, 1, 0]

    images, texts = [Path("cat.png"), Path("below/a;b.png")], ["a cat", "a cat"]
    from_words = prompts_from_words(texts, images, with_pictures=True)
    lines = "cat.png;a cat\nbelow/a;b.png;a cat\n"
    from_file = read_prompts(write(pictures, "b.txt", lines), with_pictures=True)
    assert [prompt.folder for prompt in from_words] == [prompt.folder for prompt in from_file]
    assert [prompt.picture.path for prompt in from_words] == images
    one_for_all = prompts_from_words(texts, images[:1], with_pictures=True)
    assert [(prompt.picture.path, prompt.repetition) for prompt in one_for_all] == [(images[0], 0), (images[0], 1)]


def test_a_prompt_says_where_it_was_given(tmp_path):
    file = str(write(tmp_path, "a.txt", "a cat\n\na cat\n"))
    (first, second) = read_prompts(Path(file))
    assert (first.where, second.where) == (f"--prompt_file {file!r}, line 1", f"--prompt_file {file!r}, line 3")
    assert [prompt.where for prompt in prompts_from_words(["a", "b"])] == ["--prompt number 1", "--prompt number 2"]


@pytest.mark.parametrize(
    ("texts", "images", "with_pictures", "fault"),
    [
        (["a cat", " \n"], [], False, r"--prompt ' \n': is empty"),
        (["{" + "a" * 99], [], False, f"--prompt '{{{'a' * 56}...': begins with '{{', but is no JSON object"),
        (["{a cat}"], [], False, "--prompt '{a cat}': begins with '{', but is no JSON object"),
        (['{"4": "a cat"}'], [], False, "a schedule of prompts begins with frame 0"),
        (["caf\udce9"], [], False, r"--prompt 'caf\udce9': is not UTF-8"),
        (["a\0b"], [], False, r"--prompt 'a\x00b': has a zero byte"),
        (["cat.png;a cat"], [], False, "--prompt 'cat.png;a cat': names a picture; give it as --image FILE"),
        (["a cat"], ["cat.png"], False, "--image 'cat.png': only --mode i2v"),
        (["a cat"], [], True, "--image is given 0 times for 1 --prompt"),
        (["a", "b", "c"], ["cat.png", "cat.png"], True, "--image is given 2 times for 3 --prompt"),
        (["a cat"], ["dog.png"], True, "--image 'dog.png': there is no such picture; looked for dog.png"),
        (["a cat"], ["a.txt"], True, "--image 'a.txt': cannot be read: its content is no PNG"),
        (["a cat"], ["below"], True, "--image 'below': below is no file"),
    ],
)
def test_a_bad_prompt_or_image_is_named(pictures, monkeypatch, texts, images, with_pictures, fault):
    monkeypatch.chdir(pictures)
    (pictures / "a.txt").write_text("a cat")
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        prompts_from_words(texts, [Path(image) for image in images], with_pictures=with_pictures)
    assert str(caught.value).startswith(("--prompt ", "--image "))
    assert "\n" not in str(caught.value)
