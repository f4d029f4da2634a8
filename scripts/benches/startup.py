"""What a user waits for before anything happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benches.measure import Variants


def startup() -> Variants:
    """Fresh interpreters: an empty one, ours, and one that imports torch."""
    return {
        "python, nothing imported": _process("-c", "pass"),
        "import hypersphere": _process("-c", "import hypersphere"),
        "hypersphere --help": _process("-m", "hypersphere.cli", "--help"),
        "import torch": _process("-c", "import torch"),
    }


def _process(*words: str) -> Callable[[], int]:
    def run() -> int:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        return 1

    return run
