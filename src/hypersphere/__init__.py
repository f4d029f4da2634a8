"""hypersphere: five papers on hyperspherical embeddings, reproduced number by number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypersphere.evaluation.fewshot import episodes, evaluate, open_set, retrieval

__version__ = "0.1.0"

# What people take into their own work; imported when first asked for, since it brings torch.
_FEW_SHOT = ("episodes", "evaluate", "open_set", "retrieval")
__all__ = ["__version__", "episodes", "evaluate", "open_set", "retrieval"]


def __getattr__(name: str) -> Any:
    if name in _FEW_SHOT:
        from hypersphere.evaluation import fewshot

        return getattr(fewshot, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
