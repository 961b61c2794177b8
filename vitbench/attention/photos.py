"""A user's own picture, made like the data set's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitbench.data.image_set import ImageSet
from vitbench.errors import UserError


def read_photo(path: Path, like: ImageSet) -> NDArray[np.uint8]:
    """Crop the middle square of a picture and resize it: uint8 [C, Y, X].

    Raises:
        UserError: if the file is missing or no picture.
    """
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if like.channels == 1 else "RGB")
    except FileNotFoundError:
        raise UserError(f"--image {path}: there is no such file; check the path") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"--image {path}: is not a picture that can be read ({error})") from None
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    square = square.resize((like.image_size, like.image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(square, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()
