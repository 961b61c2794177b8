"""`vitbench new NAME`: a commented sweep file to start from."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from vitbench.errors import UserError
from vitbench.options import Parser

_STARTER = Path(__file__).with_name("starter.yaml")
_DATASETS = {
    "digits": "dataset: {name: digits} # 1,797 images of 8x8 pixels; needs no download",
    "mnist": "dataset: {name: mnist, offline: digits} # digits where MNIST is not at hand",
    "faces": "dataset: {name: faces, label_noise: 0, labels: [Eyeglasses, Smiling]} # drawn",
    "celeba": "dataset: {name: celeba, labels: [Eyeglasses, Smiling]}",
}
_OF_CLASSES = {
    "how_many": "  # train_images: 2000 # all where left out",
    "axes": "    lr: [0.003, 0.001, 0.0003]",
    "models": 18,
    "claim": """\
  - id: middle
    says: 0.001 is the best of the three on unseen images
    metric: test_loss
    of: {lr: 0.001}
    is: lowest""",
}
_OF_LABELS = {
    "how_many": "  matched: 700 # images with a label, and as many without it, for every label",
    "axes": "    lr: [0.001]\n    label: [Eyeglasses, Smiling] # a model for each",
    "models": 12,
    "claim": """\
  - id: easier
    says: Eyeglasses is learned to a lower loss than Smiling
    metric: excess
    of: {label: Eyeglasses}
    is: lower
    than: {label: Smiling}""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0, or 2 for bad input)."""
    args = build_parser().parse_args(argv)
    try:
        path = write(args.name, args.dataset, args.images, Path())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {path}; now: vitbench sweep {path} --dry-run")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `vitbench new`."""
    parser = Parser(
        prog="vitbench new", description="Write NAME.yaml, a commented sweep file to start from."
    )
    parser.add_argument("name", metavar="NAME", help="of the sweep")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--dataset", choices=sorted(_DATASETS), default="digits", help="images (default: digits)"
    )
    source.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="your own: one subfolder per class, or images and one CSV of attributes",
    )
    return parser


def write(name: str, dataset: str, images: Path | None, folder: Path) -> Path:
    """Write `<folder>/<name>.yaml`; the sweep is on a data set, or on a folder of images.

    Raises:
        UserError: if the name cannot be one, the file is there, or the images are not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise UserError(f"{name}: a name may hold letters, digits, '_', '-' and '.' only")
    path = folder / f"{name}.yaml"
    section, rest = _DATASETS[dataset], _OF_CLASSES
    if images is not None:
        if not images.is_dir():
            raise UserError(f"--images {images}: there is no such folder; check the path")
        place = json.dumps(str(images.resolve()))
        section = f"dataset:\n  name: folder\n  path: {place}\n  image_size: 32"
    elif dataset in ("faces", "celeba"):
        rest = _OF_LABELS
    text = _STARTER.read_text(encoding="utf-8").format(
        file=path, name=name, dataset=section, **rest
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path}: is there already; choose another name, or remove it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path
