"""One web page with all videos below results folders: prompts are rows, experiments columns, played side by side.

python scripts/gallery.py results/ -o gallery.html [--metrics FILE] [--embed]

The page needs no server and no network. It shows MP4s. Of a video that is only there as a GIF, which no browser can
stop at a frame, it shows an MP4 that is made from it once and kept beside the page.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from lvdm.cli.command import Parser, says_errors
from lvdm.evaluation.reading import BROKEN
from lvdm.io.files import whole_file
from lvdm.runtime.progress import progress_bar
from lvdm.web.gallery.media import Clip, from_gif
from lvdm.web.gallery.page import page
from lvdm.web.gallery.videos import find_videos, read_curves


def write_gallery(args: argparse.Namespace, scratch: Path) -> str:
    """Writes the page; returns what to say about it. scratch: where MP4s can be that the page does not name."""
    output = args.output
    if output.is_dir():
        raise ValueError(f"--output {str(output)!r} is a folder; expected the name of the HTML file to write")
    videos, problems = find_videos(args.results)
    media = scratch if args.embed else output.with_name(f"{output.stem}_media")
    clips = {}
    for video in progress_bar(videos, desc="videos", unit="video"):
        try:
            clips[video.folder] = Clip.read(video.file) if video.file.suffix == ".mp4" else from_gif(video.file, media)
        except BROKEN as error:
            sentence, _, _ = str(error).partition("\n")
            problems.append(f"{video.folder}: {sentence}")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not clips:
        raise ValueError(f"RESULTS {', '.join(map(str, args.results))}: expected at least one finished video below")
    shown = [video for video in videos if video.folder in clips]
    curves = read_curves(args.metrics, shown) if args.metrics else {}
    html = page(shown, clips, curves=curves, problems=problems, folder=output.parent, embed=args.embed)
    try:
        with whole_file(output) as partial:
            partial.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--output {str(output)!r}: cannot be written ({error.strerror})") from error
    left_out = f", {len(problems)} left out" if problems else ""
    return f"{output}: {len(clips)} videos{left_out}, {len(html) / 1e6:.1f} MB"


@says_errors
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="results folders as videocrafter_main.py writes them")
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery.html"), help="the page (%(default)s)")
    parser.add_argument(
        "--metrics", type=Path, metavar="FILE", help="report.json of evaluate.py --output: curves under videos"
    )
    parser.add_argument("--embed", action="store_true", help="put the videos into the page: one file to send around")
    args = parser.parse_args(arguments)
    with TemporaryDirectory() as scratch:
        print(write_gallery(args, Path(scratch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
