"""Named, local randomness: every generator is seeded from what it is for, never from global state.

Two draws for different purposes are independent, and no draw of data depends on the method
that is trained on it.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(purpose: str, *parts: int | str) -> int:
    """A 63-bit seed for `purpose` and its `parts` (seed, epoch, class, ...)."""
    text = "/".join([purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(purpose: str, *parts: int | str) -> np.random.Generator:
    """A NumPy generator for `purpose` and its `parts`."""
    return np.random.Generator(np.random.PCG64(derive(purpose, *parts)))
