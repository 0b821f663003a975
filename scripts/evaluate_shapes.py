"""How often do generated videos show what their captions say? Reads colour, shape and motion off the frames.

python scripts/evaluate_shapes.py RESULTS... [--windows 0-15 84-99] [--held_out] [--json FILE]
python scripts/evaluate_shapes.py --ground_truth [N]            the evaluator's own certificate
python scripts/evaluate_shapes.py --write_prompts FILE.txt|FILE.csv [--count 60]    captions; in a .csv with pictures
"""

import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # before the imports that take seconds
    from lvdm.runtime.interrupt import exit_on_interrupt

    exit_on_interrupt()

import imageio.v3 as iio
import numpy as np
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from lvdm.cli.command import Parser, says_errors
from lvdm.data.captions import HELD_OUT_SCENES, SCENES, Scene
from lvdm.data.shape_reader import MIN_FRAMES, read_clip, score
from lvdm.data.shapes import HEIGHT, WIDTH, render, trajectory
from lvdm.evaluation.reading import find_records, read_frames, read_record, result_video


def to_frames(video: torch.Tensor) -> np.ndarray:
    """(T, 3, H, W) in [0, 1] -> (T, H, W, 3) uint8."""
    return (video.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def through_jpeg(video: torch.Tensor) -> torch.Tensor:
    files = (iio.imwrite("<bytes>", frame, extension=".jpg", quality=30) for frame in to_frames(video))
    return torch.from_numpy(np.stack([iio.imread(file, extension=".jpg") for file in files])).permute(0, 3, 1, 2) / 255


DEGRADATIONS = {  # what a small autoencoder and a video file do to frames (T, 3, H, W) in [0, 1], in this order
    "blur": lambda video: gaussian_blur(video, [7, 7], [1.0, 1.0]),
    "noise": lambda video: video + torch.randn_like(video) * 8 / 255,
    "tint": lambda video: video + torch.randn(3, 1, 1).sign() * 10 / 255,
    "jpeg": through_jpeg,
}


COUNTED = {
    "background": ["background"],
    "color": ["color"],
    "shape": ["shape"],
    "color and shape": ["color", "shape"],
    "motion": ["motion"],
    "all four": ["background", "color", "shape", "motion"],
}


def find_videos(root: Path) -> Iterator[tuple[Path, Mapping]]:
    """Every `{prompt}/{experiment}/` below `root` with a record, and that record."""
    records = ((path.parent, read_record(path)) for path in find_records(root))
    return ((folder, record) for folder, record in records if record is not None)


def evaluate(roots: Sequence[Path], windows: Sequence[tuple[int, int]], *, held_out: bool) -> list[dict]:
    """Print a line for each results folder, experiment and window, then what was left out; return every reading."""
    lines, videos, skipped, short = defaultdict(list), [], [], []
    for root, folder, settings in [(base, *found) for base in roots for found in find_videos(base)]:
        try:
            scene = Scene.parse(settings["prompt"])
            if held_out and not scene.held_out:
                continue
            video = read_frames(result_video(folder))
            frames = np.stack(list(islice(video, max(last for _, last in windows) + 1)))
        except (ValueError, OSError) as error:
            skipped.append(f"{folder}: {str(error).splitlines()[0]}")
            continue
        readings = {}
        for first, last in windows:
            if last >= len(frames):
                short.append(f"{folder}: {len(frames)} frames do not reach {first}-{last}")
                continue
            reading = read_clip(frames[first : last + 1])
            readings[f"{first}-{last}"] = {"reading": asdict(reading), "right": score(reading, scene)}
            lines[f"{root}: {folder.name}, {first}-{last}"].append(score(reading, scene))
        videos.append({"path": str(folder), "mode": settings.get("mode"), "prompt": scene.caption, "windows": readings})
    if videos:
        print_table(lines)
    for problem, cases in (("skipped", skipped), ("too short", short)):
        if cases:
            print("\n  ".join([f"\n{problem}: {len(cases)}", *cases]))
    if not videos:
        raise ValueError(f"no videos to evaluate in {', '.join(map(str, roots))}")
    return videos


def certify(count: int) -> None:
    """Print how many of `count` rendered clips are read right, as they are and degraded."""
    if count < 1:
        raise ValueError(f"--ground_truth {count}: expected at least 1")
    torch.manual_seed(0)
    trials = {"clean": [], **{name: [change] for name, change in DEGRADATIONS.items()}, "all": DEGRADATIONS.values()}
    lines = {name: [] for name in trials}
    for index in range(count):
        scene = SCENES[index * 37 % len(SCENES)]  # every scene once before any comes twice, and all words early
        x, y, phase = (torch.rand(3) * torch.tensor([WIDTH, HEIGHT, 1])).tolist()
        clip, _ = render(scene, trajectory(scene.motion, torch.arange(16.0), x=x, y=y, phase=phase))
        for name, changes in trials.items():
            video = clip
            for change in changes:
                video = change(video)
            lines[name].append(score(read_clip(to_frames(video)), scene))
    print_table(lines)


def print_table(lines: Mapping[str, Sequence[Mapping[str, bool]]]) -> None:
    """A Markdown table of the percentage that is right: a line for each name, a column for what is counted."""
    print(f"| right, % | n | {' | '.join(COUNTED)} |\n{'|---' * (len(COUNTED) + 2)}|")
    for name, scores in lines.items():
        shares = (np.mean([all(row[part] for part in parts) for row in scores]) for parts in COUNTED.values())
        print(f"| {name} | {len(scores)} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |")


def choose_held_out(count: int) -> list[Scene]:
    """Held-out scenes in which every word occurs about as often as its alternatives."""
    if not 1 <= count <= len(HELD_OUT_SCENES):
        raise ValueError(f"--count {count}: expected 1 to {len(HELD_OUT_SCENES)}")
    chosen, used = [], Counter()
    for _ in range(count):
        rest = (scene for scene in HELD_OUT_SCENES if scene not in chosen)
        chosen.append(min(rest, key=lambda scene: sum(used[word] for word in astuple(scene))))
        used.update(astuple(chosen[-1]))
    return chosen


def write_prompts(path: Path, scenes: Sequence[Scene]) -> None:
    """Captions, one a line; or, as .csv, a table with a picture for each, rendered into a folder of the same name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() != ".csv":
        path.write_text("".join(f"{scene.caption}\n" for scene in scenes), encoding="utf-8")
        return
    torch.manual_seed(0)
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    rows = [("image", "prompt")]
    for index, scene in enumerate(scenes):
        x, y, phase = (torch.rand(3) * torch.tensor([WIDTH, HEIGHT, 1])).tolist()
        picture, _ = render(scene, trajectory(scene.motion, torch.zeros(1), x=x, y=y, phase=phase))
        name = f"{index:03d}_{scene.color}_{scene.shape}.png"
        iio.imwrite(folder / name, to_frames(picture)[0])
        rows.append((f"{folder.name}/{name}", scene.caption))
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def parse_window(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and int(last) - int(first) + 1 >= MIN_FRAMES):
        raise ValueError(f"--windows {text!r}: expected FIRST-LAST, inclusive, of at least {MIN_FRAMES} frames")
    return int(first), int(last)


@says_errors
def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="results folders as videocrafter_main.py writes them")
    parser.add_argument("--windows", nargs="+", default=["0-15", "84-99"], help="frames to read, inclusive")
    parser.add_argument("--held_out", action="store_true", help="count held-out prompts only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading to FILE")
    parser.add_argument(
        "--ground_truth", nargs="?", type=int, const=len(SCENES), metavar="N", help="read rendered clips"
    )
    parser.add_argument("--write_prompts", type=Path, metavar="FILE", help="write held-out captions")
    parser.add_argument("--count", type=int, default=60, help="how many captions --write_prompts writes")
    args = parser.parse_args()
    if bool(args.results) + (args.ground_truth is not None) + (args.write_prompts is not None) != 1:
        raise ValueError("expected one of: RESULTS..., --ground_truth, --write_prompts")
    if args.ground_truth is not None:
        certify(args.ground_truth)
    elif args.write_prompts:
        write_prompts(args.write_prompts, choose_held_out(args.count))
    else:
        readings = evaluate(args.results, [parse_window(text) for text in args.windows], held_out=args.held_out)
        if args.json:
            args.json.write_text(json.dumps(readings, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
