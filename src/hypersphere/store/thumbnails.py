"""Small images inside an artifact, so that a figure can show them wherever the record is."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import PIL.Image

from hypersphere.store.artifacts import LIMIT

BUDGET = LIMIT - 20_000  # bytes of all of them: the other arrays of the artifact need some
QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20, 10)


def pack(images: Sequence[np.ndarray], pixels: int) -> dict[str, np.ndarray]:
    """Images (h, w) or (h, w, 3) uint8 as the arrays `bytes` and `ends` of an artifact.

    Each is WebP, whose decoding is exact everywhere (JPEG's is not), shrunk to `pixels` on its
    longer side where it has more. Those that have not stay exactly as they are if all then fit into
    BUDGET; else all get the best quality in which they do. Raises ValueError when none will do.
    """
    for exact, quality in [(True, QUALITIES[0]), *((False, each) for each in QUALITIES)]:
        found = [_encoded(image, pixels, quality, exact) for image in images]
        if sum(map(len, found)) <= BUDGET:
            return {
                "bytes": np.frombuffer(b"".join(found), np.uint8),
                "ends": np.cumsum([len(each) for each in found], dtype=np.int64),
            }
    raise ValueError(f"{len(images)} images of {pixels} pixels exceed {BUDGET} bytes: show fewer")


def unpack(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The images (h, w, 3) uint8 that `pack` was given, as small as it made them."""
    starts = [0, *arrays["ends"][:-1]]
    found = []
    for start, end in zip(starts, arrays["ends"], strict=True):
        with PIL.Image.open(BytesIO(arrays["bytes"][start:end].tobytes())) as image:
            found.append(np.asarray(image.convert("RGB")))
    return found


def _encoded(image: np.ndarray, pixels: int, quality: int, exact: bool) -> bytes:
    small = PIL.Image.fromarray(image).convert("RGB")
    exact = exact and max(small.size) <= pixels
    small.thumbnail((pixels, pixels), PIL.Image.Resampling.LANCZOS)
    file = BytesIO()
    small.save(file, "WEBP", lossless=exact, quality=quality, method=6)
    return file.getvalue()
