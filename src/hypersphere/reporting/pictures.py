"""The page's copies of the committed pictures: the same to the eye, a fraction of the bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = 256
TOO_FAR = 4.0  # root mean square of the palette's error in levels of 255: drawings stay below 3
QUALITY = 85  # of photographs, which no palette holds


@dataclass(frozen=True)
class Picture:
    """A data URI and the size in pixels, so that the page keeps the place free."""

    uri: str
    width: int
    height: int


def page_copy(path: Path) -> Picture:
    """The picture of a PNG file with a palette, or where that would show bands (photographs) as
    WebP. The same file gives the same bytes."""
    with Image.open(path) as file:
        whole = file.convert("RGBA")
    picture = Image.new("RGB", whole.size, "white")
    picture.paste(whole, mask=whole.getchannel("A"))
    # the octree alone is quick enough for forty pictures; median cut takes ten times as long
    few = picture.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    if _error(few, picture) <= TOO_FAR:
        return _encoded(few, "png", optimize=True)
    return _encoded(picture, "webp", quality=QUALITY)


def _error(one: Image.Image, other: Image.Image) -> float:
    difference = np.asarray(one.convert("RGB"), np.float32) - np.asarray(other, np.float32)
    return float(np.sqrt(np.mean(difference**2)))


def _encoded(picture: Image.Image, kind: str, **settings: bool | int) -> Picture:
    data = io.BytesIO()
    picture.save(data, kind, **settings)
    text = base64.b64encode(data.getvalue()).decode()
    return Picture(f"data:image/{kind};base64,{text}", *picture.size)
