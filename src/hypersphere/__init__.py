"""hypersphere: five papers on hyperspherical embeddings, reproduced number by number.

As a library: heads, prototypes, imprinting and the few-shot evaluator take your own network and
arrays (docs/library.md). What `__all__` names is imported when it is first asked for, since it
brings torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypersphere import heads, losses, prototypes
    from hypersphere.evaluation.fewshot import episodes, evaluate, open_set, retrieval
    from hypersphere.exported import ExportedModel, load_model
    from hypersphere.heads import (
        Contrastive,
        Head,
        NormalizedSoftmax,
        Prototypes,
        RandomVectors,
        Softmax,
        Triplet,
    )

__version__ = "0.1.0"

_OF = {
    "hypersphere.evaluation.fewshot": ("episodes", "evaluate", "open_set", "retrieval"),
    "hypersphere.exported": ("ExportedModel", "load_model"),
    "hypersphere.heads": (
        "Contrastive", "Head", "NormalizedSoftmax", "Prototypes", "RandomVectors", "Softmax",
        "Triplet",
    ),
}  # fmt: skip
_MODULE = {name: module for module, names in _OF.items() for name in names}
_SUBMODULES = ("heads", "losses", "prototypes")

__all__ = [
    "Contrastive",
    "ExportedModel",
    "Head",
    "NormalizedSoftmax",
    "Prototypes",
    "RandomVectors",
    "Softmax",
    "Triplet",
    "__version__",
    "episodes",
    "evaluate",
    "heads",
    "load_model",
    "losses",
    "open_set",
    "prototypes",
    "retrieval",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _MODULE:
        return getattr(import_module(_MODULE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
