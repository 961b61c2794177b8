"""How fast CelebA's files are prepared: this loader against Pillow's and torchvision's usual way.

    python benchmarks/celeba_decode.py [--images 2000] [--rounds 5]

The files are drawn faces of CelebA's size (178x218 pixels, JPEG). Ways take turns; prints the
median and range of images a second, and the ratio within rounds. `libjpeg` decodes at full size and
throws the pixels away: what no loader that decodes everything can beat.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitbench.data.decode import decode
from vitbench.data.sets.celeba import HEIGHT, WIDTH
from vitbench.data.sets.faces import faces
from vitbench.hardware import cpu_count
from vitbench.torchvision_import import torchvision

SIZE = 32


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """The file of a picture [Y, X, 3]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    return file.getvalue()


def libjpeg(content: bytes) -> object:
    """Decode alone."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def pillow(content: bytes) -> object:
    """Decode in full, crop, resize."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    top = (image.height - WIDTH) // 2
    square = image.crop((0, top, WIDTH, top + WIDTH))
    return square.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def usual_transform() -> Callable[[bytes], object]:
    """torchvision's CenterCrop, Resize and ToTensor, as its CelebA examples have it."""
    transforms = torchvision().transforms
    chain = transforms.Compose(
        [transforms.CenterCrop(WIDTH), transforms.Resize(SIZE), transforms.ToTensor()]
    )
    return lambda content: chain(Image.open(io.BytesIO(content)).convert("RGB"))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    drawn = faces.draw(args.images, (WIDTH, HEIGHT))
    contents = [jpeg(image.transpose(1, 2, 0)) for image in drawn.images]
    one: Callable[[bytes], object] = lambda content: decode(content, SIZE, 3, WIDTH)  # noqa: E731
    cores = cpu_count()
    ways = {
        "this loader, 1 thread": (one, 1),
        f"this loader, {cores} threads": (one, cores),
        "libjpeg, full size, 1 thread": (libjpeg, 1),
        "Pillow, full size, 1 thread": (pillow, 1),
        "torchvision transforms, 1 thread": (usual_transform(), 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(args.rounds + 1):
        for name, (way, threads) in ways.items():
            started_s = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(way, contents, chunksize=1):
                    pass
            if round_number:  # the first one warms up
                rates[name].append(len(contents) / (time.perf_counter() - started_s))
    reference = rates["torchvision transforms, 1 thread"]
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, reference, strict=True))
        print(
            f"{name:34s} {statistics.median(found):8,.0f} images/s "
            f"({min(found):,.0f} to {max(found):,.0f})  x{ratio:.2f}"
        )
    whole_s = 202_599 / statistics.median(rates[f"this loader, {cores} threads"])
    print(f"all 202,599 images of CelebA at this speed: {whole_s:.0f} s")


if __name__ == "__main__":
    main()
