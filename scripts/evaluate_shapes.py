"""Measure how often videos show what their captions of the shapes grammar say: colour, shape, motion, background.

python scripts/evaluate_shapes.py RESULTS... [--windows 0-15 84-99] [--held_out] [--json FILE]
python scripts/evaluate_shapes.py --ground_truth [N]            test the measurement itself, on rendered clips
python scripts/evaluate_shapes.py --write_prompts FILE.txt|FILE.csv [--count 60]
                                                                write captions; a .csv also gets images
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

from lvdm.cli.command import Parser, with_error_lines
from lvdm.data.captions import SCENES
from lvdm.data.shape_prompts import choose_held_out, write_prompts
from lvdm.evaluation.shape_certificate import certify
from lvdm.evaluation.shapes import Readings, parse_window, read_results, scores_table


def print_readings(readings: Readings) -> None:
    """Print the table, then what was left out."""
    if readings.videos:
        print(scores_table(readings.scores))
    for problem, cases in (("skipped", readings.skipped), ("too short", readings.short)):
        if cases:
            print("\n  ".join([f"\n{problem}: {len(cases)}", *cases]))


@with_error_lines
def main() -> int:
    """Do the one of three things that the flags ask for."""
    parser = Parser(__doc__)
    parser.add_argument(
        "results", nargs="*", type=Path, metavar="RESULTS", help="results folders of videocrafter_main.py"
    )
    parser.add_argument(
        "--windows",
        nargs="+",
        default=["0-15", "84-99"],
        metavar="FIRST-LAST",
        help="frames to read, the last included (default: 0-15 84-99)",
    )
    parser.add_argument("--held_out", action="store_true", help="count only prompts that were not trained on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading to FILE")
    parser.add_argument(
        "--ground_truth",
        nargs="?",
        type=int,
        const=len(SCENES),
        metavar="N",
        help="read N rendered clips (default: %(const)s, one of every scene)",
    )
    parser.add_argument("--write_prompts", type=Path, metavar="FILE", help="write held-out captions")
    parser.add_argument("--count", type=int, metavar="N", default=60, help="captions to write (default: %(default)s)")
    args = parser.parse_args()
    given = bool(args.results) + (args.ground_truth is not None) + (args.write_prompts is not None)
    if given != 1:
        raise ValueError(f"RESULTS..., --ground_truth, --write_prompts: expected one of these, got {given or 'none'}")
    if args.ground_truth is not None:
        print(scores_table(certify(args.ground_truth)))
    elif args.write_prompts:
        write_prompts(args.write_prompts, choose_held_out(args.count))
    else:
        readings = read_results(args.results, [parse_window(text) for text in args.windows], held_out=args.held_out)
        print_readings(readings)
        if not readings.videos:
            raise ValueError(f"no videos to evaluate in {', '.join(map(str, args.results))}")
        if args.json:
            args.json.write_text(json.dumps(readings.videos, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
