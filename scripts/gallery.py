"""Write a web page with all videos below results folders, side by side: a row per prompt, a column per experiment.

python scripts/gallery.py results/ -o gallery.html [--metrics FILE] [--embed]

The page needs no server and no network. It plays MP4s. Of a video that is only there as a GIF, in which no browser can
stop at a frame, an MP4 is made once and kept beside the page.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from lvdm.cli.command import Parser, with_error_lines
from lvdm.io.files import whole_file
from lvdm.io.results import find_results
from lvdm.web.gallery.curves import read_curves
from lvdm.web.gallery.media import find_movies
from lvdm.web.gallery.page import build_page


def write_gallery(args: argparse.Namespace, scratch: Path) -> str:
    """Write the page and return a message about it. scratch: a folder for MP4s that the page does not need later."""
    output = args.output
    if output.is_dir():
        raise ValueError(f"--output {str(output)!r} is a folder; expected the name of the HTML file to write")
    if other := [root for root in args.results if not root.is_dir()]:
        raise ValueError(f"RESULTS {str(other[0])!r}: expected a folder that videocrafter_main.py wrote")
    results, problems = find_results([Path(os.path.abspath(root)) for root in args.results])
    media = scratch if args.embed else output.with_name(f"{output.stem}_media")
    movies, unreadable = find_movies(results, media)
    problems += unreadable
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not movies:
        raise ValueError(f"RESULTS {', '.join(map(str, args.results))}: expected at least one finished video below")
    shown = [result for result in results if result.folder in movies]
    curves = read_curves(args.metrics, shown) if args.metrics else {}
    html = build_page(shown, movies, curves=curves, problems=problems, folder=output.parent, embed=args.embed)
    try:
        with whole_file(output) as partial:
            partial.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--output {str(output)!r}: cannot be written ({error.strerror})") from error
    left_out = f", {len(problems)} left out" if problems else ""
    return f"{output}: {len(movies)} videos{left_out}, {len(html) / 1e6:.1f} MB"


@with_error_lines
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and say where it is."""
    parser = Parser(__doc__)
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="results folders of videocrafter_main.py"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("gallery.html"),
        metavar="FILE",
        help="page to write (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics", type=Path, metavar="FILE", help="show the curves of this report.json of scripts/evaluate.py"
    )
    parser.add_argument(
        "--embed", action="store_true", help="put the videos into the page, so that it is a single file"
    )
    args = parser.parse_args(arguments)
    with TemporaryDirectory() as scratch:
        print(write_gallery(args, Path(scratch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
