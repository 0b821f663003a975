"""MP4 files that grow, and the boxes that they consist of."""

import io
import struct

import numpy as np
import pytest

from lvdm.io.mp4 import encode, end_of
from lvdm.io.mp4_boxes import boxes, boxes_within, fields

FRAMES = np.random.default_rng(0).integers(0, 256, (8, 16, 24, 3), np.uint8)


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize("fps", [1, 7, 30])
@pytest.mark.parametrize("first", [8, 100_003, 2**31 - 9])
def test_a_fragment_says_where_it_is_in_the_file(fps, first):
    """Its number, and the time of its first frame, are all that tells it from one at another place."""
    settings = {"fps": fps, "crf": 18, "comment": "moof"}
    begin = encode(FRAMES, first=0, **settings)
    fragment = encode(FRAMES, first=first, **settings)
    file = io.BytesIO(fragment)
    assert [found.kind for found in boxes(file, 0, len(fragment))] == [b"moof", b"mdat"]
    (number,) = boxes_within(file, "moof mfhd", 0, len(fragment))
    (time,) = boxes_within(file, "moof traf tfdt", 0, len(fragment))
    assert fields(file, ">4xI", number) == (first + 1,)
    assert fields(file, ">B3xQ", time) == (1, first)
    moved = bytearray(begin[-len(fragment) :])
    struct.pack_into(">I", moved, number.content + 4, first + 1)
    struct.pack_into(">Q", moved, time.content + 4, first)
    assert moved == fragment


def test_the_end_of_some_frames_is_that_of_a_fragment():
    parts = [encode(FRAMES[:3], first=0, fps=8, crf=18, comment=""), encode(FRAMES, first=3, fps=8, crf=18, comment="")]
    file = io.BytesIO(b"".join(parts))
    ends = {0: 0, 3: len(parts[0]), 11: len(parts[0] + parts[1])}
    assert {frames: end_of(file, frames) for frames in range(14)} == {n: ends.get(n) for n in range(14)}
    cut_off = io.BytesIO(file.getvalue()[:-1])
    assert (end_of(cut_off, 3), end_of(cut_off, 11)) == (ends[3], None)


def test_boxes_of_every_size():
    long = struct.pack(">I4sQ", 1, b"long", 16 + 3) + b"abc"  # 64 bits
    data = (
        box(b"free")
        + long
        + box(b"moov", box(b"trak", b"12") + box(b"trak"))
        + struct.pack(">I4s", 0, b"mdat")
        + b"to the end"
    )
    file = io.BytesIO(data)
    found = list(boxes(file, 0, len(data)))
    assert [one.kind for one in found] == [b"free", b"long", b"moov", b"mdat"]
    assert [data[one.content : one.end] for one in found[::3]] == [b"", b"to the end"]
    assert data[found[1].content : found[1].end] == b"abc"
    first, second = boxes_within(file, "moov trak", 0, len(data))
    assert fields(file, ">2s", first) == (b"12",)
    with pytest.raises(struct.error):
        fields(file, ">2s", second)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0",
        struct.pack(">I4s", 7, b"free"),
        struct.pack(">I4s", 9, b"free"),
        struct.pack(">I4s", 1, b"free"),
        struct.pack(">I4sQ", 1, b"free", 15) + bytes(8),
        struct.pack(">I4sQ", 1, b"free", 2**64 - 1) + bytes(8),
    ],
)
def test_boxes_that_end_too_early_or_late_are_refused(data):
    with pytest.raises(struct.error):
        list(boxes(io.BytesIO(data), 0, len(data)))
