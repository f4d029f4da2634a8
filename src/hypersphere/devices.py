"""How many devices train each run: a setting of the environment, no part of what a run is."""

from __future__ import annotations

import os

from hypersphere.errors import UserError

DEVICES = "HYPERSPHERE_DEVICES"


def devices() -> int:
    """Devices that each run is trained on. Raises UserError where that is no number above 0."""
    stated = os.environ.get(DEVICES, "1")
    if not stated.isdigit() or int(stated) < 1:
        raise UserError(f"{DEVICES}={stated}: must be a whole number above 0")
    return int(stated)
