"""Parse --mode: what a video is conditioned on, and which of FIFO-Diffusion+'s tricks are on."""

import re
from dataclasses import dataclass

from lvdm.runtime.errors import shortened

TASKS = ("t2v_seed_ar", "t2v_seed", "t2v", "i2v_ar", "i2v")  # a longer name stands before one that it begins with
QCACHES = {"TTqcache": "TT", "STqcache": "ST"}
ATTENTIONS = ("attn1", "attn2")
WEIGHT = re.compile(r"weighted([0-9]{1,3})")
MODES = (
    "t2v|i2v|t2v_seed|t2v_seed_ar|i2v_ar, then joined by '_' in any order TTqcache|STqcache (or with _attn1|_attn2 "
    "right behind it), weightedNN (NN percent, 00 to 100, only with a qcache), unilatent; each at most once"
)


@dataclass(frozen=True)
class Mode:
    """Hold a parsed --mode; `str(mode)` is its canonical name, and `Mode.parse(str(mode)) == mode`.

    Args:
        task: one of TASKS.
        qcache: ("TT" temporal or "ST" spatial, "attn1" or "attn2"), if there is a Q-cache.
        qcache_weight: 0 to 1, from weightedNN; None if the mode does not say it.
        unilatent: whether the base clip is spread evenly over the first queue.
    """

    task: str
    qcache: tuple[str, str] | None = None
    qcache_weight: float | None = None
    unilatent: bool = False

    @classmethod
    def parse(cls, text: str) -> "Mode":
        """Parse the words of a mode; ValueError names the offending one and lists what is allowed."""
        task = next((task for task in TASKS if f"{text}_".startswith(f"{task}_")), None)
        if task is None:
            raise _error(text, f"it begins with {shortened(text.split('_')[0])!r}")
        words = text.removeprefix(task).split("_")[1:]
        qcache = weighted = None
        unilatent = False
        previous = task
        for word in words:
            if word in QCACHES and qcache is None:
                qcache = (QCACHES[word], ATTENTIONS[0])
            elif word in ATTENTIONS and previous in QCACHES:
                qcache = (QCACHES[previous], word)
            elif weighted is None and (match := WEIGHT.fullmatch(word)) and int(match[1]) <= 100:
                weighted = match
            elif word == "unilatent" and not unilatent:
                unilatent = True
            else:
                raise _error(text, _fault(word, text))
            previous = word
        if weighted and qcache is None:
            raise _error(text, f"{weighted[0]!r} needs a qcache")
        return cls(task, qcache, int(weighted[1]) / 100 if weighted else None, unilatent)

    def __str__(self) -> str:
        words = [self.task]
        if self.qcache is not None:
            words.append("{}qcache_{}".format(*self.qcache))
        if self.qcache_weight is not None:
            words.append(f"weighted{round(100 * self.qcache_weight):02d}")
        if self.unilatent:
            words.append("unilatent")
        return "_".join(words)

    @property
    def needs_image(self) -> bool:
        """Whether the model must take image tokens: of the user's picture, or of frames of the video itself."""
        return self.task != "t2v"

    @property
    def from_picture(self) -> bool:
        """Whether each prompt comes with a picture."""
        return self.task in ("i2v", "i2v_ar")

    @property
    def begins_from_own_frame(self) -> bool:
        """Whether the queue is conditioned on the base clip's first frame, or the last of `--continue_from`."""
        return self.task in ("t2v_seed", "t2v_seed_ar")

    @property
    def renews_picture(self) -> bool:
        """Whether each finished frame becomes the condition of those that follow."""
        return self.task in ("t2v_seed_ar", "i2v_ar")


def _fault(word: str, text: str) -> str:
    if word in ATTENTIONS:
        return f"{word!r} does not stand right behind a qcache"
    if match := WEIGHT.fullmatch(word):
        return f"{word!r} is a second weight" if int(match[1]) <= 100 else f"{word!r} is more than 100 percent"
    if word in QCACHES:
        return f"{word!r} is a second qcache"
    if word in ("unilatent", "t2v", "i2v", "seed", "ar") and text.split("_").count(word) > 1:
        return f"the word {word!r} appears twice"
    return f"unknown word {shortened(word)!r}"


def _error(text: str, fault: str) -> ValueError:
    return ValueError(f"--mode {shortened(text)!r}: {fault}; allowed: {MODES}")
