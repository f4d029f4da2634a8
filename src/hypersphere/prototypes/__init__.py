"""Class points that are placed before any training, on the unit sphere or in the plane.

Each placement gives a tensor (num_classes, dim) in label order; `separation` says how far apart
its points are, and how far anything could be. Use them alone: they know no dataset and no network.
"""

from hypersphere.prototypes.fixed import from_file, one_hot, raster, semantic
from hypersphere.prototypes.optimal import circle, optimal, orthoplex, simplex
from hypersphere.prototypes.placements import place
from hypersphere.prototypes.privileged import RankingLoss, order_kept, privileged
from hypersphere.prototypes.published import published
from hypersphere.prototypes.separation import Separation, best_bound, separation

__all__ = [
    "RankingLoss",
    "Separation",
    "best_bound",
    "circle",
    "from_file",
    "one_hot",
    "optimal",
    "order_kept",
    "orthoplex",
    "place",
    "privileged",
    "published",
    "raster",
    "semantic",
    "separation",
    "simplex",
]
