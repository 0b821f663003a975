"""Write MP4 files that grow: fragmented MP4 (ISO 14496-12) with a fragment for every few frames.

Each fragment is an H.264 stream of its own and does not depend on the ones before it, so an interrupted file can be
resumed with the same bytes as if it had not been interrupted.
"""

import os
import struct
import subprocess
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from lvdm.io.mp4_boxes import boxes, boxes_within, fields

FRAGMENTED = ["-movflags", "frag_keyframe+empty_moov+default_base_moof+skip_trailer"]
WHOLE = ["-movflags", "+faststart"]


def encode(frames: Sequence[np.ndarray], *, first: int, fps: int, crf: int, comment: str) -> bytes:
    """Return `frames` as the fragment to append to a file that holds `first` frames already, as H.264 with 4:2:0.

    Args:
        frames: (H, W, 3) uint8 each.
        first: the number of the first frame. With 0 the bytes begin with the header of a file.
        fps: frames a second.
        crf: quality, from 0 (large) to 51 (small).
        comment: metadata of the file; must be the same for all of its fragments.

    Raises:
        OSError: With the message of ffmpeg.
    """
    height, width, _ = frames[0].shape
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    # BT.709, and labelled as such: without a tag players guess the matrix from the size, and colours shift. Newer
    # ffmpegs take the tag from the frames, older ones from the command line.
    convert = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"
    frame_tag = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    file_tag = "-colorspace bt709 -color_primaries bt709 -color_trc bt709"
    colors = f"-vf {convert},{frame_tag} {file_tag}"
    # One group of pictures without B-frames: frames are shown in the order in which they are decoded. `stitchable`
    # gives every fragment the same headers.
    codec = f"-c:v libx264 -crf {crf} -pix_fmt yuv420p -bf 0 -sc_threshold 0 -g {len(frames)} -threads 1"
    clock = f"-x264-params stitchable=1 -video_track_timescale {fps}"  # a tick is a frame
    # Fragments have rising numbers, and their frames the times of the whole file, which the muxer is to leave alone.
    place = f"-fragment_index {first + 1} -output_ts_offset {first / fps:.6f} -avoid_negative_ts disabled"
    arguments = [*f"{source} {colors} {codec} {clock} {place}".split(), "-metadata", f"comment={comment}", *FRAGMENTED]
    arguments += ["-movflags", "+frag_discont", "-f", "mp4", "-"]
    data = run_ffmpeg(arguments, b"".join(map(np.ascontiguousarray, frames)))
    if first == 0:
        return data
    header_end = next(box.start for box in boxes(BytesIO(data), 0, len(data)) if box.kind == b"moof")
    return data[header_end:]


def remux(source: Path, target: Path, *, layout: Sequence[str], fps: int) -> None:
    """Copy an MP4 into the `layout` WHOLE (for players) or FRAGMENTED (to append to)."""
    clock = ["-video_track_timescale", str(fps)]
    run_ffmpeg(["-i", f"file:{source}", "-c", "copy", *clock, *layout, "-f", "mp4", f"file:{target}"])


def end_of(file: BinaryIO, frames: int) -> int | None:
    """Return how many bytes of a fragmented MP4 hold its first `frames`; None if no fragment ends with them."""
    seen = 0
    if frames == 0:
        return 0
    try:
        for box in boxes(file, 0, file.seek(0, os.SEEK_END)):
            if box.kind == b"moof":
                runs = boxes_within(file, "traf trun", box.content, box.end)
                seen += sum(fields(file, ">4xI", run)[0] for run in runs)
            if box.kind == b"mdat" and seen >= frames:
                return box.end if seen == frames else None
    except struct.error:
        pass  # the file is cut off before those frames end
    return None


def run_ffmpeg(arguments: Sequence[str], data: bytes = b"") -> bytes:
    """Return what ffmpeg writes to its standard output, given `data` at its standard input.

    Raises:
        OSError: With the exit status and the message of ffmpeg.
    """
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
    # In a session of its own, Ctrl-C does not reach ffmpeg, and this process can let it finish.
    done = subprocess.run(command, input=data, capture_output=True, start_new_session=True, check=False)
    if done.returncode != 0:
        message = " ".join(done.stderr.decode(errors="replace").split())
        raise OSError(f"ffmpeg ended with status {done.returncode}: {message[-500:]}")
    return done.stdout
