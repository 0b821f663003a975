from itertools import permutations, product

import pytest
from helpers import result_or_sentence
from hypothesis import given
from hypothesis import strategies as st

from lvdm.pipeline.mode import TASKS, Mode


def test_every_mode_survives_its_name():
    qcaches = [None, *product(("TT", "ST"), ("attn1", "attn2"))]
    for task, qcache, weight, unilatent in product(TASKS, qcaches, (None, 0.0, 0.07, 0.29, 0.9, 1.0), (False, True)):
        mode = Mode(task, qcache, weight if qcache else None, unilatent)
        assert Mode.parse(str(mode)) == mode


@pytest.mark.parametrize("task", TASKS)
def test_words_come_in_any_order(task):
    for words in permutations(("STqcache_attn2", "weighted90", "unilatent")):
        mode = Mode.parse("_".join((task, *words)))
        assert mode == Mode(task, ("ST", "attn2"), 0.9, True)
        assert str(mode) == f"{task}_STqcache_attn2_weighted90_unilatent"


def test_a_qcache_means_attn1_unless_it_says_more():
    assert Mode.parse("t2v_TTqcache") == Mode.parse("t2v_TTqcache_attn1") == Mode("t2v", ("TT", "attn1"))


def test_the_weight_is_in_percent():
    assert Mode.parse("t2v_TTqcache_weighted7").qcache_weight == 0.07
    assert str(Mode.parse("t2v_TTqcache_weighted7")) == "t2v_TTqcache_attn1_weighted07"
    assert str(Mode.parse("t2v_TTqcache_weighted100")) == "t2v_TTqcache_attn1_weighted100"


def test_only_plain_text_needs_no_image():
    assert {task for task in TASKS if Mode(task).needs_image} == {"i2v", "i2v_ar", "t2v_seed", "t2v_seed_ar"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "''"),
        ("t2w", "'t2w'"),
        ("T2V", "'T2V'"),
        ("TTqcache", "'TTqcache'"),
        ("t2vx", "'t2vx'"),
        ("t2v_", "unknown word ''"),
        ("t2v\nseed", "'t2v\\nseed'"),
        ("t2v_foo", "unknown word 'foo'"),
        ("t2v_foo_foo", "unknown word 'foo'"),
        ("t2v_unilatent_seed", "unknown word 'seed'"),
        ("t2v_unilatent_unilatent", "'unilatent' appears twice"),
        ("t2v_t2v", "'t2v' appears twice"),
        ("t2v_TTqcache_STqcache", "'STqcache' is a second qcache"),
        ("t2v_TTqcache_unilatent_TTqcache", "'TTqcache' is a second qcache"),
        ("t2v_attn1", "'attn1' does not stand right behind a qcache"),
        ("t2v_TTqcache_attn1_attn2", "'attn2' does not stand right behind a qcache"),
        ("t2v_TTqcache_unilatent_attn1", "'attn1' does not stand right behind a qcache"),
        ("t2v_weighted90", "'weighted90' needs a qcache"),
        ("t2v_TTqcache_weighted", "unknown word 'weighted'"),
        ("t2v_TTqcache_weighted101", "'weighted101' is more than 100 percent"),
        ("t2v_TTqcache_weighted90_weighted80", "'weighted80' is a second weight"),
    ],
)
def test_a_bad_mode_is_told_what_is_allowed(text, fault):
    with pytest.raises(ValueError, match="--mode") as caught:
        Mode.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    assert fault in message
    assert "\n" not in message
    for word in ("t2v|i2v|t2v_seed|t2v_seed_ar", "TTqcache|STqcache", "_attn1|_attn2", "weightedNN", "unilatent"):
        assert word in message


def test_a_long_mode_is_shortened():
    for text in ("x" * 500, "t2v_" + "x" * 500):
        with pytest.raises(ValueError, match=r"^--mode '.{57}\.\.\.': .*'x{57}\.\.\.'; allowed: t2v"):
            Mode.parse(text)


TASK_WORDS = ("t2v", "i2v", "t2v_seed", "t2v_seed_ar", "seed")
OTHER_WORDS = ("TTqcache", "STqcache", "attn1", "attn2", "weighted", "90", "unilatent", "_")
WORDS = st.lists(st.sampled_from([*TASK_WORDS, *OTHER_WORDS]))


@given(text=st.text() | WORDS.map("_".join) | WORDS.map("".join))
def test_any_text_is_a_mode_or_a_sentence(text):
    mode = result_or_sentence(lambda: Mode.parse(text), flag="--mode")
    assert mode is None or Mode.parse(str(mode)) == mode
