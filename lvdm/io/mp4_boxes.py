"""Read the boxes that an MP4 file consists of (ISO 14496-12). Nothing is decoded, and files are never trusted."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple


class Box(NamedTuple):
    """A box of a file: its kind, and the bytes from its `start`, and of its `content`, to its `end`."""

    kind: bytes
    start: int
    content: int
    end: int


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes side by side between two bytes of a file; struct.error if one does not end within them."""
    while start < end:
        size, kind = struct.unpack(">I4s", read_part(file, start, min(start + 8, end)))
        content = start + 8
        if size == 1:  # a size of 64 bits follows the kind
            (size,) = struct.unpack(">Q", read_part(file, content, min(content + 8, end)))
            content += 8
        size = size or end - start  # 0: up to the end
        if size < content - start or start + size > end:
            raise struct.error("a box is cut off")
        yield Box(kind, start, content, start + size)
        start += size


def boxes_within(file: BinaryIO, path: str, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes at a `path` such as "moov trak mdia", each kind inside the one before it."""
    kind, _, rest = path.partition(" ")
    for box in boxes(file, start, end):
        if box.kind == kind.encode() and rest:
            yield from boxes_within(file, rest, box.content, box.end)
        elif box.kind == kind.encode():
            yield box


def fields(file: BinaryIO, layout: str, box: Box) -> tuple:
    """Return the fields that the content of a box begins with; struct.error if it is shorter than their `layout`."""
    return struct.unpack(layout, read_part(file, box.content, min(box.content + struct.calcsize(layout), box.end)))


def read_part(file: BinaryIO, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` to `end`, or fewer if it is shorter."""
    file.seek(start)
    return file.read(end - start)
