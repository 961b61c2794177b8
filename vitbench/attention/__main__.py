"""`python -m vitbench.attention RESULTS`: maps, plates and scores of trained models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vitbench.errors import UserError
from vitbench.net import net
from vitbench.options import Parser
from vitbench.records.folder import require_results


@net
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, or 2 for bad input)."""
    args = build_parser().parse_args(argv)
    try:
        require_results(args.results)
        return _run(args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench attention`."""
    parser = Parser(
        prog="vitbench attention", description="Show and score where a trained model looks."
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a results folder")
    parser.add_argument("--trial", default="best", help="best (default), or a trial's id")
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="map the best N trials and score the spread of all, as a sweep does at its end",
    )
    parser.add_argument("--label", help="a trial that learned this label")
    parser.add_argument("--images", type=int, default=16, help="test images to score (default 16)")
    parser.add_argument(
        "--image", type=Path, nargs="+", default=[], metavar="FILE", help="pictures of your own"
    )
    parser.add_argument(
        "--method",
        choices=("last", "rollout", "gradient", "input_gradient"),
        help="of the plate; input_gradient is that of models that show no attention",
    )
    parser.add_argument("--layer", type=int, default=0, help="from 1; the last if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of images")
    parser.add_argument("--data", type=Path, help="folder that holds the data sets")
    parser.add_argument("--json", action="store_true", help="print scores, or predictions, as JSON")
    return parser


def _run(args: argparse.Namespace) -> int:
    from vitbench.analysis.results import load
    from vitbench.attention import export
    from vitbench.attention import subject as subject_of
    from vitbench.attention.maps import one_thread
    from vitbench.model.attention import attend, shows_attention

    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")
    if args.images < 1:
        raise UserError(f"--images {args.images}: must be at least 1")
    if args.top is not None:
        if args.top < 1:
            raise UserError(f"--top {args.top}: must be at least 1")
        best = export.export_best(
            args.results, top=args.top, count=args.images, data_dir=args.data, watch=_print_stage
        )
        plates = [args.results / "attention" / f"plate_{name}.png" for name in best]
        if args.json:
            _print_json(args.results, [name.partition("_")[0] for name in best], plates)
        else:
            print(*plates, sep="\n")
        return 0
    results = load(args.results)
    images = subject_of.open_images(results, args.data)
    seen = subject_of.showing(results)[0] if args.trial == "best" else results
    seen = seen if len(seen.trials) else results
    trial_id = subject_of.choose(seen, args.trial, args.label)
    subject = subject_of.open_subject(results, trial_id, images, args.label)
    first = subject.normalised(subject.images.test.images[:1])
    silent = not shows_attention(subject.model)
    depth = 0 if silent else len(attend(subject.model, first)[0])
    if args.layer and silent:
        raise UserError(f"--layer {args.layer}: this model shows no attention in any layer")
    if not 0 <= args.layer <= depth:
        raise UserError(f"--layer {args.layer}: the model has layers 1 to {depth}")
    layer = args.layer - 1 if args.layer else -1
    folder = results.folder / "attention"
    say = sys.stderr if args.json else sys.stdout
    print(f"trial {trial_id}: {export.who(results, subject)}", file=say)
    if silent:
        print("this model shows no attention; the maps are of its input gradients", file=say)
    if args.image:
        photos = subject_of.read_photos(args.image, subject.images)
        names = [path.name for path in args.image]
        predicted = export.draw(results, subject, photos, None, layer, args.method, names)
        plate = folder / "plate_photos.png"
        if args.json:
            told = [
                {"file": str(path), "predicted": name, "probability": probability}
                for path, (name, probability) in zip(args.image, predicted, strict=True)
            ]
            content = {"trial_id": trial_id, "predictions": told, "plates": [str(plate)]}
            print(json.dumps(content, indent=1, allow_nan=False))
            return 0
        for path, (name, probability) in zip(args.image, predicted, strict=True):
            print(f"{path}: {name} ({probability:.2f})")
        print(plate)
        return 0
    with one_thread():
        lines = export.export(
            results, subject, count=args.images, seed=args.seed, layer=layer, method=args.method
        )
    plate = folder / f"plate_{subject.key}.png"
    if args.json:
        _print_json(results.folder, [trial_id], [plate])
    else:
        print(*lines, plate, sep="\n")
    return 0


def _print_json(results: Path, trial_ids: Sequence[str], plates: Sequence[Path]) -> None:
    """The scores of trials, as attention_summary.csv has them, and their plates."""
    import pandas as pd

    scores = pd.read_csv(results / "attention" / "attention_summary.csv", dtype={"label": "string"})
    rows = json.loads(scores[scores["trial_id"].isin(trial_ids)].to_json(orient="records"))
    print(json.dumps({"scores": rows, "plates": [*map(str, plates)]}, indent=1, allow_nan=False))


def _print_stage(stage: str, done: int, of: int) -> None:
    if not done:
        print(f"{stage}: {of}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
